//! The request of a login, byte for byte, and how long its token is used.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::form_urlencoded;

use crate::{client_at, ledger, limits};

/// Least time that the answer is on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// Answers one request with a token that lasts an hour, and returns the request.
async fn answer_one(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() >= length.parse().ok()?)
    };
    while is_whole(&request) != Some(true) {
        assert_ne!(
            stream.read_buf(&mut request).await.unwrap(),
            0,
            "it breaks off"
        );
    }
    let token = r#"{"access_token":"t","token_type":"bearer","expires_in":3600}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        token.len()
    );
    tokio::time::sleep(ON_ITS_WAY).await;
    stream
        .write_all(format!("{head}{token}").as_bytes())
        .await
        .unwrap();
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn a_login_has_fluents_fields_and_its_token_is_used_until_a_minute_before_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let client = client_at(
        &base,
        std::sync::Arc::new(|| Ok("pass & word".to_owned())),
        limits(),
        ledger(),
    );
    let (request, used_for) = tokio::join!(answer_one(listener), client.log_in());

    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(
        head.contains("\r\ncontent-type: application/x-www-form-urlencoded"),
        "{head}"
    );
    assert!(head.contains("\r\nfluent.account: acme"), "{head}");
    let mut fields: Vec<_> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    fields.sort();
    let expected = [
        ("client_id", "simulator"),
        ("client_secret", "simulator"),
        ("grant_type", "password"),
        ("password", "pass & word"),
        ("scope", "api"),
        ("username", "simulator"),
    ];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    let used_for = used_for.unwrap();
    let whole = Duration::from_hours(1);
    let early = Duration::from_mins(1);
    assert!(
        used_for <= whole - early - ON_ITS_WAY,
        "its life began before its way here: {used_for:?}"
    );
    assert!(used_for > whole - early * 2, "{used_for:?}");
}
