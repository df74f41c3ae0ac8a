//! Endpoints as they are in practice: slow, endless, elsewhere, and not allowed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_http::HttpDispatcher;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn open(settings: Value) -> Result<HttpDispatcher, dispatch::BoxError> {
    HttpDispatcher::open(
        serde_json::from_value(settings)?,
        &OpenContext::new("r", "."),
    )
    .await
}

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn dispatch(dispatcher: &HttpDispatcher) -> Result<Done, DispatchError> {
    let event = dispatch::testing::event("E", "HD_1");
    let cx = Context::new("r", event.id().to_string(), PATIENCE);
    dispatcher.dispatch(&event, &cx).await
}

/// Answers every connection with these bytes, then does as `after` says.
async fn endpoint<F>(
    answer: &'static str,
    after: impl Fn(TcpStream) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            after(stream).await;
        }
    });
    address
}

#[tokio::test]
async fn the_status_decides_whatever_the_body_does() {
    let endless = endpoint(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
        async |mut stream: TcpStream| {
            let chunk = [b'x'; 1 << 14];
            while stream.write_all(&chunk).await.is_ok() {}
        },
    )
    .await;
    let trickling = endpoint(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
        async |mut stream: TcpStream| {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        },
    )
    .await;
    for address in [endless, trickling] {
        let dispatcher = open(json!({"url": format!("http://{address}/")}))
            .await
            .unwrap();
        // Neither ever ends.
        assert_eq!(dispatch(&dispatcher).await.unwrap(), Done::with_status(200));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n";
    let address = endpoint(elsewhere, async |_| {}).await;
    let dispatcher = open(json!({"url": format!("http://{address}/")}))
        .await
        .unwrap();
    let error = dispatch(&dispatcher).await.unwrap_err();
    assert!(
        matches!(
            error,
            DispatchError::Transient {
                status: Some(302),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_reset_and_a_refusal_are_passing_and_name_no_url() {
    let resets = endpoint("", async |stream: TcpStream| drop(stream)).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for address in [resets, closed] {
        let dispatcher = open(json!({"url": format!("http://{address}/secret-path?token=1")}))
            .await
            .unwrap();
        let error = dispatch(&dispatcher).await.unwrap_err();
        assert!(
            matches!(error, DispatchError::Transient { status: None, .. }),
            "{error:?}"
        );
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            said += &error.to_string();
            cause = error.source();
        }
        assert!(!said.contains("secret-path"), "{said}");
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to_unless_allowed() {
    let address = endpoint("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", async |_| {}).await;
    let url = format!("http://localhost:{}/", address.rsplit(':').next().unwrap());
    let refused = open(json!({"url": url})).await.unwrap();
    let error = dispatch(&refused).await.unwrap_err();
    let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    assert!(
        said.iter().any(|cause| cause.contains("allow-private")),
        "{said:?}"
    );

    let allowed = open(json!({"url": url, "allow-private": true}))
        .await
        .unwrap();
    assert!(dispatch(&allowed).await.is_ok());
}

#[tokio::test]
async fn a_secret_goes_to_another_host_in_clear_only_where_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), "s3cret").unwrap();
    let open = async |settings: Value| {
        HttpDispatcher::open(
            serde_json::from_value(settings).unwrap(),
            &OpenContext::new("r", folder.path()),
        )
        .await
    };
    let oauth2 = |token_url: &str| json!({"auth": {"oauth2": {"token-url": token_url, "client-id": "c", "client-secret": {"file": "s"}}}});
    let secrets = [
        json!({"auth": {"bearer": {"file": "s"}}}),
        json!({"auth": {"basic": {"user": "u", "password": {"file": "s"}}}}),
        json!({"headers": {"x-api-key": {"file": "s"}}}),
        oauth2("https://id.example.com/token"),
    ];
    let with = |url: &str, secret: &Value| {
        let mut settings = json!({"url": url});
        settings
            .as_object_mut()
            .unwrap()
            .extend(secret.as_object().unwrap().clone());
        settings
    };
    for secret in &secrets {
        for host in [
            "hooks.example.com",
            "10.0.0.1:8080",
            "[2001:db8::1]",
            "localhost.example.com",
        ] {
            let mut settings = with(&format!("http://{host}/"), secret);
            let error = open(settings.clone()).await.unwrap_err().to_string();
            assert!(
                error.contains("http.") && error.contains("allow-plaintext-credentials"),
                "{error}"
            );
            settings["allow-plaintext-credentials"] = true.into();
            open(settings).await.unwrap();
        }
        for url in [
            "https://hooks.example.com/",
            "http://localhost/",
            "http://127.3.2.1/",
            "http://[::1]/",
        ] {
            open(with(url, secret)).await.unwrap();
        }
    }
    // The login's own address counts too, whatever the endpoint's is.
    let elsewhere = with(
        "https://hooks.example.com/",
        &oauth2("http://id.example.com/token"),
    );
    assert!(open(elsewhere).await.is_err());
    open(with(
        "http://hooks.example.com/",
        &json!({"headers": {"x": "{{ event.name }}"}}),
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn what_may_never_be_connected_to_is_refused_at_the_start() {
    for host in [
        "169.254.169.254",
        "2852039166",
        "[::ffff:169.254.169.254]",
        "0.0.0.0",
    ] {
        assert!(
            open(json!({"url": format!("http://{host}/")}))
                .await
                .is_err(),
            "{host}"
        );
    }
    for bad in [
        "ftp://x/",
        "https://user:secret@x/",
        "not a url",
        "https://",
    ] {
        let error = open(json!({"url": bad})).await.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn headers_that_collide_or_that_no_field_can_have_are_refused_at_the_start() {
    let with = |headers: Value| json!({"url": "https://hooks.example.com/", "headers": headers});
    for name in [
        "Authorization",
        "Tracestate",
        "webhook-id",
        "Webhook_Timestamp",
        "idempotency_key",
        "FLUENT_ATTEMPT",
        "ce-id",
        "CE_source",
        "accept-encoding",
        "proxy-authorization",
        "content_type",
        "x y",
        "",
        "x:y",
        "größe",
    ] {
        assert!(open(with(json!({ name: "v" }))).await.is_err(), "{name}");
    }
    for twice in [
        json!({"x-a": "1", "X-A": "2"}),
        json!({"x-a": "1", "x_a": "2"}),
    ] {
        assert!(
            open(with(twice))
                .await
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
    for value in ["a\nb", "a\r\nx: y", "{{ event.name }}\u{0}", "a\u{7f}"] {
        let error = open(with(json!({ "x-a": value })))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("headers.x-a"), "{value:?}: {error}");
    }
    let long = "{{ event.name }}".to_owned() + &"x".repeat(5000);
    assert!(open(with(json!({ "x-a": long }))).await.is_err());
    let good = json!({"x-a": "{{ event.entityRef }}, \"quoted\"", "x-n": 5, "x-b": true, "user-agent": "ours", "accept": "a/b"});
    open(with(good)).await.unwrap();
    let odd = open(with(json!({ "x-a": ["v"] })))
        .await
        .unwrap_err()
        .to_string();
    assert!(odd.contains("expected a text, or { file: path }"), "{odd}");

    let basic = |user: &str| {
        let password = json!({"file": "tests/token"});
        json!({"url": "https://x.example.com/", "auth": {"basic": {"user": user, "password": password}}})
    };
    for user in ["a:b", ":", "a\nb"] {
        assert!(
            open(basic(user))
                .await
                .unwrap_err()
                .to_string()
                .contains("auth.basic.user"),
            "{user:?}"
        );
    }
    open(basic("größe@example.com")).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_no_json_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("t"),
        r#"{"ref": "{{ event.entityRef }}"}"#,
    )
    .unwrap();
    let open = async |template: Value| {
        let settings = json!({"url": "https://x.example.com/", "template": template});
        HttpDispatcher::open(
            serde_json::from_value(settings).unwrap(),
            &OpenContext::new("r", folder.path()),
        )
        .await
    };
    let error = open(json!({"file": "t"})).await.unwrap_err().to_string();
    assert!(error.contains("makes no JSON"), "{error}");
    open(json!({"file": "t", "content-type": "text/plain"}))
        .await
        .unwrap();
}
