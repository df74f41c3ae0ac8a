//! A request that Fluent has done is not repeated, whatever is wrong with its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fluent_api::{ApiError, Client, Limits, Mode, NewEvent, Query};
use serde_json::Map;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{client_at, ledger, limits};

/// A page of something in between, longer than any token.
fn long_page(bytes: usize) -> String {
    format!("<html>{}</html>", "x".repeat(bytes))
}

/// Starts a Fluent that answers a login as it should, and everything else with `answer`, after
/// which it trickles if that is not all.
async fn answering(login: &'static str, answer: String) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let posted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posted);
    let answer = Arc::new(answer);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(
                stream,
                login,
                Arc::clone(&answer),
                Arc::clone(&counted),
            ));
        }
    });
    let limits = Limits {
        timeout: Duration::from_secs(5),
        ..limits()
    };
    (
        client_at(
            &base,
            Arc::new(|| Ok("secret".to_owned())),
            limits,
            ledger(),
        ),
        posted,
    )
}

async fn serve(
    mut stream: TcpStream,
    login: &'static str,
    answer: Arc<String>,
    posted: Arc<AtomicUsize>,
) {
    let mut request = vec![0; 1 << 14];
    let Ok(read @ 1..) = stream.read(&mut request).await else {
        return;
    };
    if String::from_utf8_lossy(&request[..read]).contains("/oauth/token") {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            login.len()
        );
        stream
            .write_all(format!("{head}{login}").as_bytes())
            .await
            .unwrap();
        return;
    }
    posted.fetch_add(1, Ordering::Relaxed);
    let _ = stream.write_all(answer.as_bytes()).await;
    while answer.contains("trickle") && stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const LOGIN: &str = r#"{"access_token": "t", "expires_in": 3600}"#;

async fn post(login: &'static str, answer: &str) -> Result<(), ApiError> {
    let (client, posted) = answering(login, answer.to_owned()).await;
    let answer = client.post_event(&NewEvent::default(), Mode::Async).await;
    assert_eq!(posted.load(Ordering::Relaxed), 1, "posted more than once");
    answer
}

#[tokio::test]
async fn an_event_that_was_answered_with_success_is_posted() {
    let many: String = (0..200).map(|n| format!("x-{n}: v\r\n")).collect();
    for (what, answer) in [
        (
            "breaks off",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok".to_owned(),
        ),
        (
            "trickles",
            "HTTP/1.1 200 OK\r\nx: trickle\r\ncontent-length: 999\r\n\r\n".to_owned(),
        ),
        (
            "broken chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        ),
        (
            "too long",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n{}",
                "x".repeat(5_000_000)
            ),
        ),
        (
            "many headers",
            format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        ),
        (
            "folded",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "no length",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok".to_owned(),
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        ),
        (
            "too many headers",
            format!("HTTP/1.1 200 OK\r\n{}\r\n", many.repeat(5)),
        ),
        (
            "a header of a megabyte",
            format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)),
        ),
        (
            "a head that breaks off",
            "HTTP/1.1 200 OK\r\nx: ".to_owned(),
        ),
        (
            "a head that trickles",
            "HTTP/1.1 201 Created\r\nx: trickle".to_owned(),
        ),
        (
            "malformed headers",
            "HTTP/1.1 204 X\r\n\u{0}: \r\nno colon\r\n\r\n".to_owned(),
        ),
        (
            "no JSON",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{".to_owned(),
        ),
    ] {
        let posted = post(LOGIN, &answer).await;
        assert!(posted.is_ok(), "{what}: {posted:?}");
    }
}

/// Fluent closes a kept connection just as the second request comes, without an answer.
#[tokio::test]
async fn what_a_closing_connection_never_answered_is_asked_once_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let posted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posted);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut request = vec![0; 1 << 14];
                for is_answered in [true, false] {
                    let Ok(read @ 1..) = stream.read(&mut request).await else {
                        return;
                    };
                    let is_login =
                        String::from_utf8_lossy(&request[..read]).contains("/oauth/token");
                    counted.fetch_add(usize::from(!is_login), Ordering::Relaxed);
                    let body = if is_login { LOGIN } else { "" };
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    if is_login || is_answered {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    if is_login {
                        return;
                    }
                }
            });
        }
    });
    let password = Arc::new(|| Ok("secret".to_owned()));
    let client = client_at(&base, password, limits(), ledger());
    for _ in 0..4 {
        client
            .post_event(&NewEvent::default(), Mode::Async)
            .await
            .unwrap();
    }
    assert!(
        posted.load(Ordering::Relaxed) > 4,
        "no connection was used again"
    );
}

#[tokio::test]
async fn a_rate_limit_with_success_is_none_also_behind_a_byte_order_mark() {
    let body = "\u{feff}{\"errors\": [{\"extensions\": {\"code\": \"C0011E\"}}]}";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let limited = post("\u{feff}{\"access_token\": \"t\"}", &answer).await;
    assert!(
        matches!(limited, Err(ApiError::RateLimited { .. })),
        "{limited:?}"
    );
}

#[tokio::test]
async fn a_failure_stays_one_whatever_its_body_is() {
    let failed = post(LOGIN, "HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nno").await;
    assert!(failed.is_err());
}

#[tokio::test]
async fn an_answers_numbers_are_what_fluent_wrote() {
    let asked = async |data: &str| {
        let body = format!(r#"{{"data":{data}}}"#);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (client, _) = answering(LOGIN, answer).await;
        client
            .graphql(&Query::parse("{ a }").unwrap(), &Map::new())
            .await
    };
    let data = r#"{"a":{"id":9405511899560000000001,"price":1.10,"e":1e300}}"#;
    assert_eq!(asked(data).await.unwrap().as_str(), data);
    for nothing in ["null", r#"{"a":null}"#, "{}", "[]"] {
        assert!(
            matches!(asked(nothing).await, Err(ApiError::NotFound)),
            "{nothing}"
        );
    }
    assert!(matches!(
        asked(r#"{"a":1,"a":2}"#).await,
        Err(ApiError::Unreadable(_))
    ));
}

/// Asks for something, and is answered with these errors beside data.
async fn refused(errors: &str) -> ApiError {
    let body = format!(r#"{{"data":{{"a":1}},"errors":{errors}}}"#);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (client, _) = answering(LOGIN, answer).await;
    let query = Query::parse("{ a }").unwrap();
    let refused = client.graphql(&query, &Map::new()).await.unwrap_err();
    let is_paused = client.pause().is_some();
    assert_eq!(
        is_paused,
        matches!(refused, ApiError::RateLimited { .. }),
        "{errors}"
    );
    refused
}

#[tokio::test]
async fn an_error_is_for_good_only_where_fluent_says_so() {
    let coded = |codes: &[&str]| {
        let errors = codes
            .iter()
            .map(|code| format!(r#"{{"message":"x","extensions":{{"code":{code}}}}}"#));
        format!("[{}]", errors.collect::<Vec<_>>().join(","))
    };
    let classified = |class: &str| {
        format!(
            r#"[{{"message":"x","path":["a"],"locations":[{{"line":1,"column":3}}],"extensions":{{"classification":{class}}}}}]"#
        )
    };
    for (errors, expected) in [
        // Of several errors that counts which leaves most hope.
        (coded(&[r#""C0020E""#, r#""C0011E""#]), "rate-limited"),
        (coded(&[r#""C0120E""#, r#""S0001E""#]), "server"),
        (coded(&[r#""C0020E""#, r#""C0120E""#]), "not-found"),
        (coded(&[r#""C0020E""#, r#""C0001E""#]), "not-permitted"),
        (coded(&[r#""C0020E""#, "null"]), "server"),
        (coded(&["500", r#""C0011E""#]), "rate-limited"),
        (r#"[{"code":"C0011E"}]"#.to_owned(), "rate-limited"),
        (
            r#"[{"path":null,"locations":7,"extensions":{"code":"C0011E"}}]"#.to_owned(),
            "rate-limited",
        ),
        // What is no code of Fluent's says nothing.
        (coded(&["500"]), "server"),
        (coded(&[r#""INTERNAL_SERVER_ERROR""#]), "server"),
        (coded(&[r#"{"of":"another kind"}"#]), "server"),
        (classified(r#""DataFetchingException""#), "server"),
        (classified(r#""ExecutionAborted""#), "server"),
        (classified("7"), "server"),
        (r#"[{"message":"x","path":["a"]}]"#.to_owned(), "server"),
        (r#"[{"message":"x"}]"#.to_owned(), "server"),
        (r#"["x"]"#.to_owned(), "server"),
        (r#"[{"extensions":"x"}]"#.to_owned(), "server"),
        // The query itself is wrong.
        (classified(r#""ValidationError""#), "refused"),
        (classified(r#""InvalidSyntax""#), "refused"),
        (
            r#"[{"message":"x","locations":[{"line":1,"column":3}]}]"#.to_owned(),
            "refused",
        ),
        (coded(&[r#""C0077E""#]), "refused"),
    ] {
        assert_eq!(refused(&errors).await.kind(), expected, "{errors}");
    }
}

/// An error that comes with a status of its own, to what is no query.
#[tokio::test]
async fn without_a_code_of_fluents_the_status_says_what_to_do() {
    for (status, body, expected) in [
        (400, r#"{"errors":[{"message":"x"}]}"#, "refused"),
        (400, r#"{"errors":[{"code":400}]}"#, "refused"),
        (
            400,
            r#"{"errors":[{"code":400},{"code":"C0011E"}]}"#,
            "rate-limited",
        ),
        (400, r#"{"errors":"x"}"#, "refused"),
        (403, r#"{"errors":[{"code":"C0020E"}]}"#, "not-permitted"),
        (
            500,
            r#"{"errors":[{"message":"x","locations":[]}]}"#,
            "server",
        ),
    ] {
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let refused = post(LOGIN, &answer).await.unwrap_err();
        assert_eq!(refused.kind(), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_page_instead_of_a_token_makes_nothing_final_and_proves_no_password() {
    let page: &'static str = Box::leak(long_page(100 << 10).into_boxed_str());
    for login in [page, "<html></html>"] {
        let (client, _) = answering(login, String::new()).await;
        for _ in 0..2 {
            let failed = client.log_in().await.unwrap_err();
            assert!(matches!(failed, ApiError::Unreadable(_)), "{failed}");
            assert!(failed.is_transient());
        }
        // Nobody knows whether Fluent has seen the password, and refused it.
        let rests = client.log_in().await.unwrap_err();
        assert!(matches!(rests, ApiError::LoginRests { .. }), "{rests}");
    }
}

#[tokio::test]
async fn a_page_instead_of_an_answer_makes_nothing_final() {
    for (status, bytes, expected) in [
        (200, 2 << 20, "unreadable"),
        (503, 5 << 20, "server"),
        (404, 5 << 20, "server"),
        (413, 5 << 20, "refused"),
    ] {
        let page = long_page(bytes);
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{page}",
            page.len()
        );
        let (client, _) = answering(LOGIN, answer).await;
        let query = Query::parse("{ a }").unwrap();
        let failed = client.graphql(&query, &Map::new()).await.unwrap_err();
        assert_eq!(failed.kind(), expected, "{status}");
    }
    // What is Fluent's own, and too long, stays so.
    let body = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(2 << 20));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (client, _) = answering(LOGIN, answer).await;
    let query = Query::parse("{ a }").unwrap();
    let failed = client.graphql(&query, &Map::new()).await.unwrap_err();
    assert!(matches!(failed, ApiError::TooLong(_)), "{failed}");
}

#[tokio::test]
async fn fluent_is_left_alone_for_as_long_as_it_asks_whatever_its_status_is() {
    let dates = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:51:37 GMT";
    for (status, wait, body, expected) in [
        (503, "retry-after: 120", "{}", 120),
        (429, "retry-after: 120", "{}", 120),
        (429, dates, "{}", 120),
        (503, dates, "{}", 120),
        (
            200,
            "retry-after: 300",
            r#"{"errors":[{"code":"C0011E"}]}"#,
            300,
        ),
        (
            400,
            "retry-after: 300",
            r#"{"errors":[{"code":"C0011E"}]}"#,
            300,
        ),
        (
            500,
            "retry-after: 120",
            r#"{"errors":[{"code":"S0001E"}]}"#,
            120,
        ),
        // Within our bounds.
        (503, "retry-after: 99999", "{}", 600),
    ] {
        let answer = format!(
            "HTTP/1.1 {status} X\r\n{wait}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let failed = post(LOGIN, &answer).await.unwrap_err();
        let asked = failed.wait().map(|wait| wait.as_secs());
        assert_eq!(asked, Some(expected), "{status} {wait}: {failed}");
    }
}
