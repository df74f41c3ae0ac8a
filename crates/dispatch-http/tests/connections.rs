//! Connections and logins, which attempts share.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_http::HttpDispatcher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every request by its text, over connections that are kept.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> (u16, String) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = String::new();
                    let mut chunk = vec![0; 1 << 14];
                    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                        request.push_str(&String::from_utf8_lossy(&chunk[..read]));
                        if !is_whole(&request) {
                            continue;
                        }
                        let (status, body) = answer(&request);
                        let length = body.len();
                        let text = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}"
                        );
                        stream.write_all(text.as_bytes()).await.unwrap();
                        request.clear();
                    }
                });
            }
        });
        Self {
            address,
            connections,
        }
    }

    async fn dispatcher(&self, rest: Value) -> HttpDispatcher {
        let mut settings = json!({ "url": format!("http://{}/hook", self.address) });
        settings
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        let settings = serde_json::from_value(settings).unwrap();
        HttpDispatcher::open(settings, &OpenContext::new("r", folder))
            .await
            .unwrap()
    }
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap_or("0");
    body.len() >= length.parse().unwrap()
}

async fn dispatch(dispatcher: &HttpDispatcher) -> Result<Done, DispatchError> {
    let event = dispatch::testing::event("E", "HD_1");
    let cx = Context::new("r", event.id().to_string(), Duration::from_secs(60));
    dispatcher.dispatch(&event, &cx).await
}

#[tokio::test]
async fn a_connection_is_used_again_also_after_an_answer_with_a_body() {
    let server = Server::start(|_| (200, "x".repeat(10_000))).await;
    let dispatcher = server.dispatcher(json!({})).await;
    for _ in 0..8 {
        dispatch(&dispatcher).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_bearer_token_comes_from_its_file() {
    let server = Server::start(|request| {
        let is_known = request.contains("authorization: Bearer not-a-secret\r\n");
        (if is_known { 200 } else { 401 }, String::new())
    })
    .await;
    let dispatcher = server
        .dispatcher(json!({ "auth": { "bearer": { "file": "token" } } }))
        .await;
    assert_eq!(dispatch(&dispatcher).await.unwrap(), Done::with_status(200));
}

#[tokio::test]
async fn many_refusals_of_one_token_are_one_new_login() {
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&logins);
    let server = Server::start(move |request| {
        if request.starts_with("POST /token") {
            let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
            // Some servers write a number of seconds as a text.
            return (
                200,
                format!(r#"{{"access_token":"t{number}","expires_in":"3600"}}"#),
            );
        }
        (
            if request.contains("authorization: Bearer t1\r\n") {
                401
            } else {
                200
            },
            String::new(),
        )
    })
    .await;
    let oauth2 = json!({
        "token-url": format!("http://{}/token", server.address),
        "client-id": "id", "client-secret": { "file": "token" },
    });
    let dispatcher = server
        .dispatcher(json!({ "auth": { "oauth2": oauth2 } }))
        .await;
    let together = || futures::future::join_all((0..16).map(|_| dispatch(&dispatcher)));
    assert!(
        together().await.iter().all(Result::is_err),
        "the first token is refused"
    );
    // A late refusal of the old token says nothing of the new one.
    assert!(together().await.iter().all(Result::is_ok));
    assert_eq!(logins.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_login_may_not_lead_where_no_request_may() {
    let oauth2 = json!({ "token-url": "http://169.254.169.254/token", "client-id": "id", "client-secret": { "file": "token" } });
    let settings = json!({ "url": "https://example.com", "auth": { "oauth2": oauth2 } });
    assert!(serde_json::from_value::<fluent_dispatch_http::HttpSettings>(settings).is_err());
}
