//! A queue with dead letters, and the API beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use event_model::{Event, SystemClock, Timestamp};
use fluent_operator::{Operator, ReadSettings};
use grpc::{Caller, CallerService};
use history_index::Index;
use process::Shutdown;
use proto::v1;
use proto::v1::jobs_client::JobsClient;
use proto::v1::jobs_server::JobsServer;
use queue::conformance::event;
use queue::{
    Attempt, Consumer, DeadReason, Disposition, Intake, Lifecycle, MatchFields, Outcome, Position,
    ReceivedQuery, Route, Settlement, Source, StartPosition, Stores,
};
use settings::{Role, SettingsTree};
use simulator::KeyPair;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys of the account.
pub(crate) static KEYS: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(1024).unwrap());

/// The tokens of the settings, as YAML.
pub(crate) const PEOPLE: &str = "
      - { name: night, file: night.token, roles: [operate] }
      - { name: boss, file: boss.token, roles: [admin] }";

pub(crate) type Jobs = JobsClient<CallerService<JobsServer<Operator>>>;

/// Which queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    File,
    Cluster,
}

/// Both, so that a test can go through them.
pub(crate) const KINDS: [Kind; 2] = [Kind::File, Kind::Cluster];

trait Events: Intake + Source + Lifecycle {}
impl<T: Intake + Source + Lifecycle> Events for T {}

pub(crate) struct Fixture {
    folder: TempDir,
    events: Box<dyn Events>,
    pub(crate) stores: Arc<dyn Stores>,
    consumer: Box<dyn Consumer>,
    published: usize,
    _servers: Option<nats_server::Cluster>,
}

impl Fixture {
    pub(crate) async fn open(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (events, stores, servers) = match kind {
            Kind::File => {
                let (events, stores) = open_file(&folder.path().join("queue.db"));
                (events, stores, None)
            }
            Kind::Cluster => {
                let servers = start_servers().await;
                let (events, stores) = open_cluster(&servers, folder.path()).await;
                (events, stores, Some(servers))
            }
        };
        for person in ["night", "boss"] {
            let token = format!("{person}-0123456789abcdef");
            fs::write(folder.path().join(format!("{person}.token")), token).unwrap();
        }
        let consumer = events.subscribe(route("r")).await.unwrap();
        let fixture = Self {
            folder,
            events,
            stores,
            consumer,
            published: 0,
            _servers: servers,
        };
        fixture.set_people(PEOPLE);
        fixture
    }

    /// Writes these tokens into the settings.
    pub(crate) fn set_people(&self, people: &str) {
        let key = KEYS.public_base64().unwrap();
        let text = format!(
            "fluent-connect:
  connector-name: acme-connect
  accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]
  queue: {{ path: queue.db }}
  routes:
    - {{ name: r, match: {{}}, dispatcher: log }}
    - {{ name: nowhere, match: {{}}, dispatcher: log }}
  operator:
    grpc: 127.0.0.1:1
    tokens:{people}
fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: \"{key}\" }} }}
"
        );
        // Whoever reads them meanwhile has the whole of one of the two.
        let next = self.folder.path().join("next.yml");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.folder.path().join("application.yml")).unwrap();
    }

    /// An operator of a process of its own.
    pub(crate) fn operator(&self) -> (Operator, Shutdown) {
        let shutdown = Shutdown::manual(Duration::from_secs(5));
        let path = self.folder.path().join("application.yml");
        let settings: ReadSettings = Arc::new(move || Ok(SettingsTree::load(&path, [])?));
        let operator = Operator::new(
            Arc::clone(&self.stores),
            settings,
            self.audit_file(),
            Arc::new(SystemClock),
            shutdown.clone(),
        );
        (operator, shutdown)
    }

    /// The API of jobs, as somebody with this role.
    pub(crate) fn jobs_as(&self, name: &str, role: Role) -> Jobs {
        let caller = Caller::listed(name, vec![role]);
        let service = self.operator().0.jobs_service();
        JobsClient::new(CallerService::new(service, caller))
    }

    /// The API of jobs as an operator.
    pub(crate) fn jobs(&self) -> Jobs {
        self.jobs_as("night", Role::Operate)
    }

    /// Starts an executor.
    pub(crate) fn run_jobs(&self) -> Shutdown {
        let (operator, shutdown) = self.operator();
        shutdown.spawn(operator.run_jobs());
        shutdown
    }

    fn audit_file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    pub(crate) fn audit(&self) -> String {
        fs::read_to_string(self.audit_file()).unwrap_or_default()
    }

    /// Stores so many events of this name.
    pub(crate) async fn publish(&mut self, name: &str, count: usize) {
        for _ in 0..count {
            self.published += 1;
            let event = event(name, &self.published.to_string());
            self.events.publish(event).await.unwrap();
        }
    }

    /// The events that were received, whenever that was.
    pub(crate) async fn received(&self) -> Vec<(Position, Event)> {
        let query = ReceivedQuery {
            from: Timestamp::UNIX_EPOCH,
            until: Timestamp::MAX,
            after: Position::START,
            limit: 1000,
        };
        let page = self.stores.history().received(query).await.unwrap();
        page.events
    }

    /// Makes so many dead letters of events of this name.
    pub(crate) async fn bury(&mut self, name: &str, count: usize) {
        self.publish(name, count).await;
        let mut buried = 0;
        while buried < count {
            let next = timeout(PATIENCE, self.consumer.next(count - buried));
            for delivery in next.await.unwrap().unwrap() {
                let dead = Disposition::Dead(DeadReason::Permanent);
                delivery.ticket.settle(settlement(dead)).await.unwrap();
                buried += 1;
            }
        }
    }

    /// Takes deliveries until there were `count`, and returns how often each event came.
    pub(crate) async fn deliver(&mut self, count: usize) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        while seen.values().sum::<usize>() < count {
            let next = timeout(PATIENCE, self.consumer.next(100));
            for delivery in next.await.unwrap().unwrap() {
                let id = delivery.event.id().to_string();
                *seen.entry(id).or_default() += 1;
                delivery
                    .ticket
                    .settle(settlement(Disposition::Done))
                    .await
                    .unwrap();
            }
        }
        seen
    }

    /// The number of dead letters.
    pub(crate) async fn letters(&self) -> u64 {
        let counts = self.stores.dead_letters().count().await.unwrap();
        counts.iter().map(|(_, count)| count).sum()
    }
}

fn open_file(path: &Path) -> (Box<dyn Events>, Arc<dyn Stores>) {
    let options = queue_embedded::Options::new(path);
    let queue = queue_embedded::Embedded::open(options, Arc::new(SystemClock)).unwrap();
    let stores = queue_embedded::SqliteStores::open(path, None).unwrap();
    (Box::new(queue), Arc::new(stores))
}

async fn start_servers() -> nats_server::Cluster {
    let servers = nats_server::Cluster::start(1, &nats_server::Options::default()).unwrap();
    let options = cluster_options(&servers);
    let cluster = queue_nats::cluster::Cluster::connect(&options).await;
    assert!(cluster.unwrap().init().await.unwrap().is_good());
    servers
}

fn cluster_options(servers: &nats_server::Cluster) -> queue_nats::Options {
    let mut options = queue_nats::Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    options
}

async fn open_cluster(
    servers: &nats_server::Cluster,
    folder: &Path,
) -> (Box<dyn Events>, Arc<dyn Stores>) {
    let mut options = cluster_options(servers);
    options.index = Some(Arc::new(Index::open(&folder.join("index.db")).unwrap()));
    let queue = queue_nats::JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let stores = Arc::clone(queue.stores());
    (Box::new(queue), stores)
}

fn route(name: &str) -> Route {
    Route {
        name: name.to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    }
}

fn settlement(disposition: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: event_model::Clock::now(&SystemClock),
        took: Duration::from_millis(7),
        outcome: match disposition {
            Disposition::Done => Outcome::Done,
            _ => Outcome::Permanent,
        },
        status: Some(422),
        detail: None,
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

/// A job that redrives all dead letters of events of this name.
pub(crate) fn redrive(name: &str) -> v1::JobSpec {
    let filter = v1::DeadLetterFilter {
        event: name.to_owned(),
        ..v1::DeadLetterFilter::default()
    };
    let job = v1::RedriveJob {
        filter: Some(filter),
        to: String::new(),
    };
    v1::JobSpec {
        act: Some(v1::job_spec::Act::Redrive(job)),
    }
}

/// A job that discards all dead letters of events of this name.
pub(crate) fn discard(name: &str) -> v1::JobSpec {
    let filter = v1::DeadLetterFilter {
        event: name.to_owned(),
        ..v1::DeadLetterFilter::default()
    };
    let job = v1::DiscardJob {
        filter: Some(filter),
    };
    v1::JobSpec {
        act: Some(v1::job_spec::Act::Discard(job)),
    }
}

/// The request for a job, with a reason.
pub(crate) fn request(spec: v1::JobSpec) -> v1::CreateJobRequest {
    v1::CreateJobRequest {
        spec: Some(spec),
        reason: "the endpoint is back".to_owned(),
        ..v1::CreateJobRequest::default()
    }
}

/// Creates a job, and returns it.
pub(crate) async fn create(jobs: &mut Jobs, request: v1::CreateJobRequest) -> v1::Job {
    let created = jobs.create_job(request).await.unwrap().into_inner();
    assert!(!created.existed);
    created.job.unwrap()
}

/// The job as it is now.
pub(crate) async fn get(jobs: &mut Jobs, id: &str) -> v1::Job {
    let request = v1::GetJobRequest { id: id.to_owned() };
    let answer = jobs.get_job(request).await.unwrap();
    answer.into_inner().job.unwrap()
}

/// Waits until the job is as it should be.
pub(crate) async fn until(jobs: &mut Jobs, id: &str, is_so: impl Fn(&v1::Job) -> bool) -> v1::Job {
    let began = Instant::now();
    loop {
        let job = get(jobs, id).await;
        if is_so(&job) {
            return job;
        }
        assert!(began.elapsed() < PATIENCE, "it stays so: {job:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the job is in this state.
pub(crate) async fn until_state(jobs: &mut Jobs, id: &str, state: &str) -> v1::Job {
    until(jobs, id, |job| job.state == state).await
}

/// The counts of a job: done, failed, left out, of how many.
pub(crate) fn counts(job: &v1::Job) -> [u64; 4] {
    let progress = job.progress.clone().unwrap_or_default();
    [
        progress.succeeded,
        progress.failed,
        progress.skipped,
        progress.total,
    ]
}
