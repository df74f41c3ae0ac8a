//! Each role against each method, as the contract says it in words.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tonic::Code;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};

use crate::pipeline::{PATIENCE, Pipeline, free_ports};

const ROLES: [&str; 5] = ["read", "operate", "admin", "dispatch", "consume:sub"];

/// Every method with the role that its comment names.
fn documented() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/fluent/webhooks/v1");
    let mut methods = BTreeMap::new();
    for (service, file) in [("Operator", "operator.proto"), ("Jobs", "jobs.proto")] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let mut said = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("//") {
                said += comment;
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let name = rest.split('(').next().unwrap();
                let words = said.to_lowercase().replace("//", "");
                let role = if words.contains("else read") {
                    "read"
                } else {
                    words.rsplit("role: ").next().unwrap()
                };
                let role = role.trim().trim_end_matches('.').to_owned();
                methods.insert(format!("{service}/{name}"), role);
                said.clear();
            } else {
                said.clear();
            }
        }
    }
    methods.insert("Dispatcher/Dispatch".to_owned(), "dispatch".to_owned());
    methods
}

fn includes(role: &str, needed: &str) -> bool {
    role == needed || role == "admin" || (role == "operate" && needed == "read")
}

/// Calls a method with an empty message; what it said. `Ok` also for a stream that
/// goes on.
async fn call(channel: &Channel, method: &str, token: Option<&str>) -> Code {
    call_path(channel, &format!("/fluent.webhooks.v1.{method}"), token).await
}

async fn call_path(channel: &Channel, path: &str, token: Option<&str>) -> Code {
    use tonic::codegen::Service;
    let mut request = http::Request::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    // One frame: not compressed, no bytes.
    let body = Body::new(http_body_util::Full::new(axum::body::Bytes::from_static(
        &[0, 0, 0, 0, 0],
    )));
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    let response = channel.call(request.body(body).unwrap()).await.unwrap();
    let code = |value: &http::HeaderValue| Code::from_bytes(value.as_bytes());
    if let Some(status) = response.headers().get("grpc-status") {
        return code(status);
    }
    let body = http_body_util::BodyExt::collect(response.into_body());
    match tokio::time::timeout(Duration::from_secs(2), body).await {
        Ok(Ok(body)) => body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .map_or(Code::Ok, code),
        _ => Code::Ok,
    }
}

fn start(folder: &Path) -> (Pipeline, SocketAddr) {
    let route = "    - { name: sub, match: {}, dispatcher: subscription }\n";
    let mut pipeline = Pipeline::prepare(route);
    let [grpc] = free_ports();
    let tokens: String = ROLES
        .iter()
        .map(|role| {
            let file = folder.join(role.replace(':', "-"));
            fs::write(&file, token(role)).unwrap();
            format!("      - {{ name: \"{role}\", file: {file:?}, roles: [\"{role}\"] }}\n")
        })
        .collect();
    pipeline.more = format!("  operator:\n    grpc: \"{grpc}\"\n    tokens:\n{tokens}");
    pipeline.write_settings(route);
    pipeline.run();
    (pipeline, grpc)
}

fn token(role: &str) -> String {
    format!("token-of-somebody-with-{role}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_call_what_the_contract_says_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (_pipeline, grpc) = start(folder.path());
    let channel = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let methods = documented();
    assert_eq!(methods.len(), 35, "{methods:?}");
    for (method, needed) in &methods {
        assert!(
            ["read", "operate", "admin", "dispatch"].contains(&needed.as_str()),
            "{method}: {needed}"
        );
        for role in ROLES {
            let code = call(&channel, method, Some(&token(role))).await;
            let refused = code == Code::PermissionDenied;
            assert_eq!(
                !refused,
                includes(role, needed),
                "{role} calls {method}, which needs {needed}: {code:?}"
            );
            assert_ne!(code, Code::Unauthenticated, "{role} calls {method}");
        }
        assert_eq!(
            call(&channel, method, None).await,
            Code::Unauthenticated,
            "{method} without a token"
        );
        let wrong = token("nobody");
        assert_eq!(
            call(&channel, method, Some(&wrong)).await,
            Code::Unauthenticated,
            "{method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_takes_more_than_reading_and_a_route_its_own_role() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, grpc) = start(folder.path());
    let server = format!("http://{grpc}");
    let ask = |role: &str, args: &[&str]| {
        let file = folder.path().join(role.replace(':', "-"));
        let more = ["--server", &server, "--token", file.to_str().unwrap()];
        let output = pipeline.command(&[args, &more].concat());
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (_, said) = ask("read", &["dead-letters", "show", "1", "--body"]);
    assert!(
        said.contains("not allowed: read has not the role operate"),
        "{said}"
    );
    let (_, said) = ask("operate", &["dead-letters", "show", "1", "--body"]);
    assert!(said.contains("there is no dead letter 1"), "{said}");
    let (_, said) = ask("read", &["status"]);
    assert_eq!(said, "", "well or not, it is answered");
    let (_, said) = ask("operate", &["audit"]);
    assert!(said.contains("not allowed"), "{said}");

    let channel = Endpoint::from_shared(server.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    // Without `start` it gets no further; that it got there is what counts.
    assert_eq!(
        call(&channel, "Subscriptions/Subscribe", Some(&token("read"))).await,
        Code::InvalidArgument
    );
    let refused = super::subscriber::Subscriber::join(grpc, "sub", 1)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// Asks for reflection by one version of its protocol, with its usual client: the services, and
/// the files with their dependencies that define the operator's.
macro_rules! reflection {
    ($version:ident, $channel:expr, $token:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let ask = async |what: MessageRequest| {
            let asked = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(what),
            };
            let mut request = tonic::Request::new(tokio_stream::once(asked));
            let bearer = format!("Bearer {}", $token).parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            let mut client = ServerReflectionClient::new($channel.clone());
            let answers = client.server_reflection_info(request).await;
            let answer = answers.unwrap().into_inner().message().await.unwrap();
            answer.unwrap().message_response.unwrap()
        };
        let services = match ask(MessageRequest::ListServices(String::new())).await {
            MessageResponse::ListServicesResponse(listed) => listed.service,
            other => panic!("{other:?}"),
        };
        let services: Vec<String> = services.into_iter().map(|it| it.name).collect();
        let symbol = MessageRequest::FileContainingSymbol(OPERATOR.to_owned());
        let files = match ask(symbol).await {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
            other => panic!("{other:?}"),
        };
        (services, files)
    }};
}

const OPERATOR: &str = "fluent.webhooks.v1.Operator";

/// What reflection says by either version of its protocol.
fn ensure_reflected((services, files): (Vec<String>, Vec<Vec<u8>>)) {
    for service in [
        "grpc.health.v1.Health",
        OPERATOR,
        "fluent.webhooks.v1.Subscriptions",
    ] {
        assert!(
            services.iter().any(|it| it == service),
            "{service}: {services:?}"
        );
    }
    // A file's own name and its methods are texts in its descriptor.
    let has = |text: &str| {
        files
            .iter()
            .any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    assert!(has("fluent/webhooks/v1/operator.proto") && has("ListDeadLetters"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (_pipeline, grpc) = start(folder.path());
    let channel = Endpoint::from_shared(format!("http://{grpc}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let asked = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    // Readiness is followed every half second.
    let serving = async {
        while health
            .check(asked.clone())
            .await
            .unwrap()
            .into_inner()
            .status
            != 1
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, serving)
        .await
        .expect("it is serving");
    // A load balancer may also watch, and is told the present state at once.
    let mut request = tonic::Request::new(asked.clone());
    let bearer = format!("Bearer {}", token("read")).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut watched = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    let unknown = tonic_health::pb::HealthCheckRequest {
        service: "another.Service".to_owned(),
    };
    let unknown = health.check(unknown).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // Who may call anything may ask what there is.
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(
        call_path(&channel, reflection, None).await,
        Code::Unauthenticated
    );
    let token_read = token("read");
    ensure_reflected(reflection!(v1, channel, token_read));
    // What most clients of today ask for.
    let reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    assert_eq!(
        call_path(&channel, reflection, None).await,
        Code::Unauthenticated
    );
    ensure_reflected(reflection!(v1alpha, channel, token_read));
    assert_eq!(
        call_path(&channel, "/another.Service/Method", Some(&token("admin"))).await,
        Code::Unimplemented
    );
}

#[tokio::test]
async fn nobody_listens_to_the_world_without_protection() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), token("read")).unwrap();
    let file = folder.path().join("token");
    for (operator, why) in [
        (
            "{ grpc: \"0.0.0.0:50051\" }".to_owned(),
            "beyond this machine it needs `tls`",
        ),
        (
            format!(
                "{{ grpc: \"0.0.0.0:50051\", tokens: [{{ name: n, file: {file:?}, roles: [read] }}] }}"
            ),
            "needs `tls`",
        ),
        (
            "{ grpc: \"[::]:50051\", tls: { certificate: a, key: b } }".to_owned(),
            "needs `tokens` or `certificates`",
        ),
        (
            "{ grpc: \"127.0.0.1:1\", certificates: [{ name: n, roles: [read] }] }".to_owned(),
            "needs `tls.client-ca`",
        ),
        (
            format!(
                "{{ grpc: \"127.0.0.1:1\", tokens: [{{ name: n, file: {file:?}, roles: [root] }}] }}"
            ),
            "expected a role",
        ),
        (
            format!(
                "{{ grpc: \"127.0.0.1:1\", tokens: [{{ name: n, file: {file:?}, roles: [] }}] }}"
            ),
            "at least one",
        ),
        (
            "{ grcp: \"127.0.0.1:1\" }".to_owned(),
            "did you mean `grpc`",
        ),
    ] {
        let mut pipeline = Pipeline::prepare("    []\n");
        pipeline.more = format!("  operator: {operator}\n");
        pipeline.write_settings("    []\n");
        let checked = pipeline.command(&["check"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(78), "{operator}: {said}");
        assert!(said.contains(why), "{operator}: {said}");
    }
}
