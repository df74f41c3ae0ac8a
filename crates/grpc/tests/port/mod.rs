//! A gRPC port within the test, which knows one token.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fluent_grpc::{GrpcServer, Routes, UnknownTimes};
use process::{Readiness, Shutdown};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use settings::{OperatorSettings, OperatorTls, Role, TokenSettings};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Longest wait for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Port {
    address: SocketAddr,
    /// The authority of its certificate, where it has one.
    authority: Option<String>,
    readiness: Readiness,
    _folder: Option<tempfile::TempDir>,
}

impl Port {
    pub(crate) async fn open() -> Self {
        Self::open_with(UnknownTimes::default()).await
    }

    /// One at which strangers are closed for others alone: whoever waits there for an answer
    /// does not wait for a stranger's end.
    pub(crate) async fn open_for_long() -> Self {
        Self::open_with(for_long()).await
    }

    pub(crate) async fn open_with(unknown: UnknownTimes) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::serve(folder, None, None, unknown).await
    }

    /// The same, with TLS.
    pub(crate) async fn open_for_long_with_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = folder.path().join("certificate");
        let key = folder.path().join("key");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = OperatorTls {
            certificate,
            key,
            client_ca: None,
        };
        Self::serve(folder, Some(tls), Some(made.cert.pem()), for_long()).await
    }

    async fn serve(
        folder: tempfile::TempDir,
        tls: Option<OperatorTls>,
        authority: Option<String>,
        unknown: UnknownTimes,
    ) -> Self {
        allow_many_descriptors();
        let settings = OperatorSettings {
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls,
            tokens: vec![admin(folder.path())],
            certificates: Vec::new(),
            audit: PathBuf::new(),
        };
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let door = GrpcServer::bind(&settings, &shutdown)
            .await
            .unwrap()
            .with_unknown_times(unknown);
        let address = door.address().unwrap();
        let readiness = Readiness::new(&shutdown);
        readiness.set(None);
        door.serve(Routes::default(), readiness.clone(), &shutdown)
            .unwrap();
        let port = Self {
            address,
            authority,
            readiness,
            _folder: Some(folder),
        };
        port.wait_until_serving().await;
        port
    }

    /// The same port for use in a thread. It closes with the original.
    pub(crate) fn place(&self) -> Self {
        Self {
            address: self.address,
            authority: self.authority.clone(),
            readiness: self.readiness.clone(),
            _folder: None,
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let Some(authority) = &self.authority else {
            return Self::channel_to(self.address).await;
        };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn channel_to(address: SocketAddr) -> Channel {
        Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// A call that only a known caller may make, and that goes on until one side ends it.
    pub(crate) async fn watch(
        &self,
        channel: Channel,
    ) -> Result<Streaming<HealthCheckResponse>, Status> {
        let mut request = Request::new(HealthCheckRequest::default());
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        Ok(HealthClient::new(channel)
            .watch(request)
            .await?
            .into_inner())
    }

    /// A call with a good token, on a connection of its own, is answered.
    pub(crate) async fn answers_an_admin(&self) {
        let call = async { self.watch(self.channel().await).await };
        let answer = tokio::time::timeout(PATIENCE, call).await;
        assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
    }

    /// A call that began before reports the change of health.
    pub(crate) async fn says_after(
        &self,
        watching: &mut Streaming<HealthCheckResponse>,
        is_ready: bool,
    ) {
        self.readiness
            .set((!is_ready).then(|| "it is a test".into()));
        let wanted = if is_ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let said = async {
            while let Some(answer) = watching.message().await? {
                if answer.status() as i32 == wanted as i32 {
                    return Ok(());
                }
            }
            Err(Status::unavailable("it has ended"))
        };
        tokio::time::timeout(PATIENCE, said).await.unwrap().unwrap();
    }

    async fn wait_until_serving(&self) {
        let mut watching = self.watch(self.channel().await).await.unwrap();
        self.says_after(&mut watching, true).await;
    }
}

fn for_long() -> UnknownTimes {
    let hour = Duration::from_hours(1);
    UnknownTimes {
        handshake: hour,
        admitted: hour,
        oldest: hour,
    }
}

fn admin(folder: &Path) -> TokenSettings {
    let file = folder.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    TokenSettings {
        name: "admin".to_owned(),
        file,
        roles: vec![Role::Admin],
    }
}

/// Raises the limit of descriptors: both sides of each connection are in this process.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// A connection from the address of this number on this machine, with `said` sent on it.
pub(crate) fn connect_from(number: u8, port: &Port, said: &[u8]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), 0)).into())
        .unwrap();
    socket.connect(&port.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(said);
    stream
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own, which ends with it"
)]
pub(crate) fn spawn<T: Send + 'static>(
    doing: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(doing)
}

/// An address that forwards to this port, and the number of connections made through it.
pub(crate) async fn counted(port: &Port) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let target = port.address;
    spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::AcqRel);
            spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, connections)
}

/// The health that an unknown caller is answered.
pub(crate) async fn check(channel: &Channel) -> Result<i32, Status> {
    let answer = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await?;
    Ok(answer.into_inner().status)
}

/// Bytes of memory that this process has.
pub(crate) fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
