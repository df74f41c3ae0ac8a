//! The meaning of a server's last answer, whatever is wrong with it: real sockets, scripted
//! answers.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dispatch::{Context, DispatchError, Dispatcher, Done, OpenContext};
use fluent_dispatch_email::EmailDispatcher;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Behaviour of the server after its last answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Closes,
    SaysNoMore,
}

#[derive(Clone)]
struct Script {
    greeting: &'static str,
    to_auth: &'static str,
    /// What alone is taken as name and password, in base64; anything if this is empty.
    login: &'static str,
    /// Answer to NOOP; none if this is empty.
    to_noop: &'static str,
    to_data: &'static str,
    to_mail: Vec<u8>,
    then: Then,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            greeting: "220-hello\r\n220 here\r\n",
            to_auth: "235 2.7.0 OK\r\n",
            login: "",
            to_noop: "250 2.0.0 OK\r\n",
            to_data: "354 go on\r\n",
            to_mail: b"250 2.0.0 queued\r\n".to_vec(),
            then: Then::GoesOn,
        }
    }
}

struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    mails: Arc<AtomicUsize>,
    /// Number of times that the server was asked whether it is there.
    noops: Arc<AtomicUsize>,
}

async fn serve(script: Script) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counts = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let [connections, mails, noops] = counts.clone();
    let server = Server {
        port,
        connections,
        mails,
        noops,
    };
    let [connections, mails, noops] = counts;
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(
                stream,
                script.clone(),
                Arc::clone(&mails),
                Arc::clone(&noops),
            ));
        }
    });
    server
}

async fn converse(
    stream: TcpStream,
    script: Script,
    mails: Arc<AtomicUsize>,
    noops: Arc<AtomicUsize>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(script.greeting.as_bytes()).await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let answer = match line.get(..4)? {
            "EHLO" => "250-here\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            "AUTH" if !line.contains(script.login) => "535 5.7.8 no\r\n",
            "AUTH" => script.to_auth,
            "NOOP" => {
                noops.fetch_add(1, Ordering::SeqCst);
                script.to_noop
            }
            "DATA" => script.to_data,
            _ => "250 2.0.0 OK\r\n",
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
        if !(line.starts_with("DATA") && answer.starts_with('3')) {
            continue;
        }
        let mut mail = Vec::new();
        while !mail.ends_with(b"\r\n.\r\n") {
            mail.push(stream.read_u8().await.ok()?);
        }
        mails.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&script.to_mail).await.ok()?;
        match script.then {
            Then::GoesOn => {}
            Then::Closes => return None,
            Then::SaysNoMore => {
                let _ = stream.read_to_end(&mut mail).await;
            }
        }
    }
}

async fn open(server: &Server, folder: &tempfile::TempDir) -> EmailDispatcher {
    fs::write(
        folder.path().join("text"),
        ".\n..\nOrder {{ event.entityRef }}\n.\n",
    )
    .unwrap();
    fs::write(folder.path().join("password"), "s3cret\n").unwrap();
    let settings = json!({
        "server": {
            "host": "127.0.0.1", "port": server.port, "security": "none",
            "user": "shop", "password": { "file": "password" },
        },
        "from": "shop@example.com", "to": "jo@example.com", "subject": "ready", "text": "text",
    });
    let settings = serde_json::from_value(settings).unwrap();
    EmailDispatcher::open(settings, &OpenContext::new("r", folder.path()))
        .await
        .unwrap()
}

async fn dispatch(dispatcher: &EmailDispatcher) -> Result<Done, DispatchError> {
    let event = dispatch::testing::event("OrderStatusChange", "HD_1");
    let cx = Context::new("r", event.id().to_string(), Duration::from_secs(30));
    dispatcher.dispatch(&event, &cx).await
}

async fn answered(to_mail: impl Into<Vec<u8>>, then: Then) -> Result<Done, DispatchError> {
    let script = Script {
        to_mail: to_mail.into(),
        then,
        ..Script::default()
    };
    let server = serve(script).await;
    let folder = tempfile::tempdir().unwrap();
    dispatch(&open(&server, &folder).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_replaced_is_read_again() {
    let script = Script {
        // NUL, `shop`, NUL, `fresh`.
        login: "AHNob3AAZnJlc2g=",
        ..Script::default()
    };
    let server = serve(script).await;
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = open(&server, &folder).await;
    let refused = dispatch(&dispatcher).await.unwrap_err();
    assert!(
        matches!(
            refused,
            DispatchError::Transient {
                status: Some(535),
                ..
            }
        ),
        "{refused:?}"
    );
    fs::write(folder.path().join("password"), "fresh\n").unwrap();
    let until_read = async {
        while dispatch(&dispatcher).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // A secret counts as known for ten seconds.
    let read = tokio::time::timeout(Duration::from_secs(60), until_read).await;
    read.expect("the new password is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answered_2xx_has_the_mail_whatever_else_it_says() {
    let long = [&b"250 "[..], &[b'x'; 3000], b"\r\n"].concat();
    let endless = b"250-more\r\n".repeat(20_000);
    for (what, answer, then) in [
        ("a line that is too long", long, Then::GoesOn),
        ("more lines than anybody reads", endless, Then::GoesOn),
        (
            "not UTF-8",
            b"250 queued as \xff\xfe\r\n".to_vec(),
            Then::GoesOn,
        ),
        (
            "another code on its last line",
            b"250-queued\r\n550 or not\r\n".to_vec(),
            Then::GoesOn,
        ),
        (
            "a line without a code",
            b"250-queued\r\nas 17\r\n250 OK\r\n".to_vec(),
            Then::GoesOn,
        ),
        ("no last line", b"250-queued\r\n".to_vec(), Then::Closes),
        ("no end of its line", b"250 queued".to_vec(), Then::Closes),
        ("a code alone, and no end", b"250".to_vec(), Then::Closes),
        (
            "a rest that does not come",
            b"250-queued\r\n".to_vec(),
            Then::SaysNoMore,
        ),
        (
            "a second answer that nobody asked for",
            b"250 OK\r\n250 OK\r\n".to_vec(),
            Then::GoesOn,
        ),
    ] {
        let done = answered(answer, then).await;
        assert!(
            done.as_ref().is_ok_and(|done| done.status == Some(250)),
            "{what}: {done:?}"
        );
        assert!(done.unwrap().remark.is_some(), "{what}");
    }
    for (what, answer, then) in [
        ("one line", "250 2.0.0 queued as 17\r\n", Then::GoesOn),
        ("a code alone", "250\r\n", Then::GoesOn),
        (
            "several lines",
            "250-queued\r\n250-as\r\n250 17\r\n",
            Then::GoesOn,
        ),
        ("a line feed alone", "250 OK\n", Then::GoesOn),
        ("another number", "252 it will be tried\r\n", Then::GoesOn),
        (
            "it closes without a word about QUIT",
            "250 OK\r\n",
            Then::Closes,
        ),
    ] {
        let done = answered(answer, then).await;
        assert!(
            done.as_ref().is_ok_and(|done| done.remark.is_none()),
            "{what}: {done:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_2xx_is_not_taken_whatever_comes_after_it() {
    for (answer, then, is_final) in [
        ("550-no\r\n250 yes\r\n", Then::GoesOn, true),
        ("554 no", Then::Closes, true),
        ("451 later\r\n", Then::GoesOn, false),
        ("354 go on\r\n", Then::GoesOn, false),
        ("2505 OK\r\n", Then::GoesOn, false),
        ("25", Then::Closes, false),
        ("", Then::Closes, false),
        ("OK 250\r\n", Then::GoesOn, false),
        ("\r\n250 OK\r\n", Then::GoesOn, false),
    ] {
        let error = answered(answer, then).await.unwrap_err();
        assert_eq!(
            matches!(error, DispatchError::Permanent { .. }),
            is_final,
            "{answer:?}: {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_is_left_over_is_taken_for_no_later_answer() {
    // A server out of step by one: its answer about the mail is its answer to DATA.
    let script = Script {
        to_data: "250 OK\r\n354 go on\r\n",
        to_mail: Vec::new(),
        ..Script::default()
    };
    let server = serve(script).await;
    let folder = tempfile::tempdir().unwrap();
    let error = dispatch(&open(&server, &folder).await).await.unwrap_err();
    assert!(
        matches!(error, DispatchError::Transient { .. }),
        "{error:?}"
    );
    assert_eq!(server.mails.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_where_its_last_answer_was_whole() {
    for (answer, then, connections) in [
        ("250 OK\r\n", Then::GoesOn, 1),
        ("250 OK\r\n", Then::Closes, 3),
        ("250 OK\r\n550 no\r\n", Then::GoesOn, 3),
        ("250-OK\r\n", Then::SaysNoMore, 3),
    ] {
        let script = Script {
            to_mail: answer.into(),
            then,
            ..Script::default()
        };
        let server = serve(script).await;
        let folder = tempfile::tempdir().unwrap();
        let dispatcher = open(&server, &folder).await;
        for _ in 0..3 {
            dispatch(&dispatcher).await.unwrap();
        }
        assert_eq!(server.mails.load(Ordering::SeqCst), 3, "{answer:?}");
        assert_eq!(
            server.connections.load(Ordering::SeqCst),
            connections,
            "{answer:?}"
        );
        dispatcher.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_more_came_than_was_asked_for_is_not_used_again() {
    let script = Script {
        to_noop: "250 OK\r\n421 closing\r\n",
        ..Script::default()
    };
    let server = serve(script).await;
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = open(&server, &folder).await;
    for _ in 0..2 {
        dispatch(&dispatcher).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_went_silent_are_given_up_together() {
    let script = Script {
        to_noop: "",
        ..Script::default()
    };
    let server = serve(script).await;
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = open(&server, &folder).await;
    let (one, other, third) = tokio::join!(
        dispatch(&dispatcher),
        dispatch(&dispatcher),
        dispatch(&dispatcher)
    );
    one.and(other).and(third).unwrap();
    dispatch(&dispatcher).await.unwrap();
    assert_eq!(
        server.noops.load(Ordering::SeqCst),
        1,
        "one is asked for all"
    );
    assert_eq!(server.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_any_mail_buries_none() {
    let greeting = |greeting| Script {
        greeting,
        ..Script::default()
    };
    let to_auth = |to_auth| Script {
        to_auth,
        ..Script::default()
    };
    for (what, script) in [
        ("no service", greeting("554 no SMTP service here\r\n")),
        ("no mail", greeting("521 this host takes no mail\r\n")),
        ("no such mechanism", to_auth("504 5.5.4 not this one\r\n")),
        ("a mailbox", to_auth("550 5.7.1 not from you\r\n")),
    ] {
        let server = serve(script).await;
        let folder = tempfile::tempdir().unwrap();
        let error = dispatch(&open(&server, &folder).await).await.unwrap_err();
        assert!(
            matches!(
                error,
                DispatchError::Transient {
                    status: Some(500..),
                    ..
                }
            ),
            "{what}: {error:?}"
        );
    }
}
