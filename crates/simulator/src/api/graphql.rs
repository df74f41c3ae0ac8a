use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::api::Shared;
use crate::api::schema::{Api, schema};

static SCHEMA: LazyLock<Api> = LazyLock::new(schema);

pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<async_graphql::Request>,
) -> Response {
    shared.conduct.count(|calls| calls.queries += 1);
    let answer = SCHEMA.execute(request.data(shared)).await;
    Json(answer).into_response()
}
