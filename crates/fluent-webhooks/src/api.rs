//! The way of commands to the operator's API: at a server, or within this process.
//!
//! Both ways give the same client, so a command need not know whether a server runs.

use std::error::Error;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dispatch::Registry;
use event_model::SystemClock;
use grpc::{Caller, MAX_MESSAGE, Routes, Target, TlsTarget};
use operator::Operator;
use process::Shutdown;
use proto::v1;
use proto::v1::jobs_client::JobsClient;
use proto::v1::operator_client::OperatorClient;
use settings::OperatorSettings;
use tokio::time::timeout;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::{Ascii, MetadataValue};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::cli::CommonArgs;
use crate::test_sender::SettingsTestSender;
use crate::{connecting, open, output};

type Wire = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, StdError>;

/// The operator's API, and where it works.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: OperatorClient<Wire>,
    jobs: JobsClient<Wire>,
    place: String,
}

impl Api {
    /// Where it works, for questions and results: `at https://host:50051`, or `on the queue
    /// data/queue.db`.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The API of jobs, at the same place.
    pub(crate) fn jobs(&self) -> JobsClient<Wire> {
        self.jobs.clone()
    }
}

impl Deref for Api {
    type Target = OperatorClient<Wire>;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl DerefMut for Api {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

/// Longest time for a server on this machine to answer.
const HERE_WITHIN: Duration = Duration::from_millis(500);

/// Longest time for the server of `--server` to answer a first question.
const THERE_WITHIN: Duration = Duration::from_secs(10);

/// Where the help lists these options.
const HEADING: &str = "To work at a server, also on another machine";

/// The server to work at, if it is not the queue that the settings name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Work at this server's operator API, as https://host:50051, instead of on the
    /// queue of the settings
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "FLUENT_WEBHOOKS_SERVER",
        help_heading = HEADING
    )]
    pub(crate) server: Option<String>,
    /// The file with the token to show there
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FLUENT_WEBHOOKS_TOKEN_FILE",
        help_heading = HEADING
    )]
    pub(crate) token: Option<PathBuf>,
    /// The certificate, in PEM, of the authority that signed the server's, instead of those that
    /// this machine trusts
    #[arg(long, global = true, value_name = "FILE", env = "FLUENT_WEBHOOKS_CA", help_heading = HEADING)]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate of one's own to show there, in PEM
    #[arg(long, global = true, value_name = "FILE", requires = "key", help_heading = HEADING)]
    pub(crate) certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, global = true, value_name = "FILE", requires = "certificate", help_heading = HEADING)]
    pub(crate) key: Option<PathBuf>,
}

/// Opens the API for a command. `with_index` is for commands that ask for the history of a
/// cluster.
pub(crate) async fn open(
    common: &CommonArgs,
    with_index: bool,
    shutdown: &Shutdown,
) -> anyhow::Result<Api> {
    open_with(common, with_index, shutdown, None).await
}

/// Opens the API for a command that sends events to the destinations of routes.
pub(crate) async fn open_to_send(
    common: &CommonArgs,
    registry: &Registry,
    shutdown: &Shutdown,
) -> anyhow::Result<Api> {
    open_with(common, false, shutdown, Some(registry)).await
}

async fn open_with(
    common: &CommonArgs,
    with_index: bool,
    shutdown: &Shutdown,
    registry: Option<&Registry>,
) -> anyhow::Result<Api> {
    if let Some(server) = &common.server.server {
        return at(server, &common.server).await;
    }
    let tree = open::tree(&common.config)?;
    if let Some(address) = tree.operator()?.as_ref().and_then(open_to_us)
        && let Some(api) = answers(address).await
    {
        return Ok(api);
    }
    let stores = match with_index {
        true => open::stores_with_index(&common.config).await?,
        false => open::stores(&common.config).await?,
    };
    let settings = open::settings(&common.config);
    let audit = tree.audit()?;
    let sender = registry.map(|registry| {
        let facts = Arc::clone(&stores) as _;
        SettingsTestSender::new(Arc::clone(&settings), registry, facts)
    });
    let mut operator = Operator::new(
        stores,
        settings,
        audit,
        Arc::new(SystemClock),
        shutdown.clone(),
    );
    if let Some(sender) = sender {
        operator = operator.with_test_sender(sender);
    }
    let services = Routes::new(operator.clone().service());
    let here = Here {
        inner: services.add_service(operator.jobs_service()),
        caller: Caller::at_queue(whoami()),
    };
    let wire = BoxCloneSyncService::new(here.map_err(Into::into));
    Ok(client(wire, open::place(&tree.queue()?)))
}

/// The address of an operator's API that every user of this machine may call.
fn open_to_us(operator: &OperatorSettings) -> Option<SocketAddr> {
    let asks_for_nothing =
        operator.tls.is_none() && operator.tokens.is_empty() && operator.certificates.is_empty();
    asks_for_nothing.then_some(operator.grpc)
}

/// A client of the API, if one answers there: a dispatcher's listener has none.
async fn answers(address: SocketAddr) -> Option<Api> {
    let channel = Target::new(&format!("http://{address}"), None)
        .and_then(|target| target.channel())
        .ok()?;
    let place = format!("at http://{address}, a server of this machine");
    let mut api = client(within(channel, None), place);
    let nothing = v1::GetDeadLetterRequest {
        id: 0,
        include_body: false,
    };
    match timeout(HERE_WITHIN, api.get_dead_letter(nothing)).await {
        Ok(Err(status)) if status.code() == Code::NotFound => Some(api),
        _ => None,
    }
}

async fn at(server: &str, args: &ServerArgs) -> anyhow::Result<Api> {
    let identity = args.certificate.clone().zip(args.key.clone());
    let has_tls = server.starts_with("https://") || identity.is_some();
    let tls = has_tls.then(|| TlsTarget {
        ca: args.ca.clone(),
        identity,
        name: None,
    });
    let target = Target::new(server, tls).with_context(|| format!("server {server}"))?;
    let channel = target
        .channel()
        .with_context(|| format!("server {server}"))?;
    let authorization = match &args.token {
        None => None,
        Some(_) if target.is_exposed() => {
            bail!("server {server}: expected https://, or anybody on the way could read the token")
        }
        Some(file) => Some(read_token(file)?),
    };
    let wire = within(channel, authorization);
    ensure_answer(&target, server, args, wire.clone()).await?;
    Ok(client(wire, format!("at {server}")))
}

fn read_token(file: &Path) -> anyhow::Result<MetadataValue<Ascii>> {
    let token = std::fs::read_to_string(file)
        .with_context(|| format!("reading token {}", file.display()))?;
    grpc::bearer(token.trim_start_matches('\u{feff}').trim())
        .with_context(|| format!("token {}", file.display()))
}

/// Asks the server whether it is well, which everybody may ask. Whatever it says, it is there:
/// only a failure on the way is one.
async fn ensure_answer(
    target: &Target,
    server: &str,
    args: &ServerArgs,
    wire: Wire,
) -> anyhow::Result<()> {
    let mut health = HealthClient::new(wire);
    let question = HealthCheckRequest::default();
    let status = match timeout(THERE_WITHIN, health.check(question)).await {
        Ok(Err(status)) if status.source().is_some() => Some(status),
        Ok(_) => return Ok(()),
        Err(_) => None,
    };
    if let Some(why) = connecting::explain(&target.authority(), server, args).await {
        bail!(why);
    }
    match status {
        Some(status) => bail!("{server}: {}", output::said(&status)),
        None => bail!(
            "{server} does not answer within {} s",
            THERE_WITHIN.as_secs()
        ),
    }
}

fn client(wire: Wire, place: String) -> Api {
    Api {
        client: OperatorClient::new(wire.clone()).max_decoding_message_size(MAX_MESSAGE),
        jobs: JobsClient::new(wire).max_decoding_message_size(MAX_MESSAGE),
        place,
    }
}

fn within(channel: tonic::transport::Channel, authorization: Option<MetadataValue<Ascii>>) -> Wire {
    let show = move |mut request: http::Request<Body>| {
        if let Some(authorization) = &authorization
            && let Ok(mut value) = http::HeaderValue::from_bytes(authorization.as_encoded_bytes())
        {
            value.set_sensitive(true);
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, value);
        }
        request
    };
    BoxCloneSyncService::new(channel.map_request(show).map_err(Into::into))
}

/// A service within this process, with its caller.
#[derive(Clone, Debug)]
struct Here<S> {
    inner: S,
    caller: Caller,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Here<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        request.extensions_mut().insert(self.caller.clone());
        self.inner.call(request)
    }
}

/// The user and host, as the audit log's caller of commands that work on the queue itself.
pub(crate) fn whoami() -> String {
    let user = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user.to_string()).then(|| name.to_owned())
    });
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{}@{host}", named.unwrap_or_else(|| user.to_string()))
}
