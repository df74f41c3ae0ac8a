//! When an event came and of what type its data is, as a destination reads it.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dispatch::{Context, Dispatcher, Event, OpenContext};
use fluent_dispatch_http::HttpDispatcher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Returns the request by which an event is delivered in this format: its head in lower case, and
/// its body.
async fn delivered(event: &Event, format: &str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings =
        json!({"url": format!("http://{}/", listener.local_addr().unwrap()), "format": format});
    let settings = serde_json::from_value(settings).unwrap();
    let dispatcher = HttpDispatcher::open(settings, &OpenContext::new("r", "."))
        .await
        .unwrap();
    let cx = Context::new("r", "key".to_owned(), Duration::from_secs(30));
    let receive = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            assert_ne!(
                stream.read_buf(&mut request).await.unwrap(),
                0,
                "it breaks off"
            );
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if body.len() >= length.parse().unwrap() {
                let parts = (head, body.to_owned());
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
                return parts;
            }
        }
    };
    let (done, request) = tokio::join!(dispatcher.dispatch(event, &cx), receive);
    done.unwrap();
    request
}

#[tokio::test]
async fn in_binary_mode_the_time_is_a_header_and_the_datas_type_the_content_type() {
    let event = dispatch::testing::event("E", "HD_1");
    let (head, body) = delivered(&event, "binary").await;
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
    };
    let time = event.received_at().to_string().to_lowercase();
    assert_eq!(header("ce-time"), Some(&*time));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("ce-datacontenttype"), None, "it would be said twice");
    assert_eq!(body.as_bytes(), event.body());
}

#[tokio::test]
async fn in_structured_mode_both_are_fields_beside_the_data() {
    let event = dispatch::testing::event("E", "HD_1");
    let (head, body) = delivered(&event, "structured").await;
    assert!(
        head.contains("\r\ncontent-type: application/cloudevents+json"),
        "{head}"
    );
    assert!(!head.contains("\r\nce-time"), "{head}");
    let cloud_event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(cloud_event["time"], event.received_at().to_string());
    assert_eq!(cloud_event["datacontenttype"], "application/json");
    assert_eq!(
        cloud_event["data"],
        serde_json::from_slice::<Value>(event.body()).unwrap()
    );
}
