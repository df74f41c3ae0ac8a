//! The GraphQL endpoint: the schema, and errors as Fluent writes them.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::api::Shared;
use crate::api::schema::{Api, schema};

static SCHEMA: LazyLock<Api> = LazyLock::new(schema);

/// The library's message for a query that is too complex.
const TOO_COMPLEX: &str = "Query is too complex.";

pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<async_graphql::Request>,
) -> Response {
    shared.conduct.count(|calls| calls.queries += 1);
    let mut answer = SCHEMA.execute(request.data(shared)).await;
    for error in answer
        .errors
        .iter_mut()
        .filter(|error| error.message == TOO_COMPLEX)
    {
        error
            .extensions
            .get_or_insert_default()
            .set("code", "C0001E");
    }
    Json(answer).into_response()
}
