//! One request: what is checked, who asks, and the page.

mod sign_in;

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::Clock;
use grpc::Caller;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use operator::Operator;
use process::{ClientNetwork, ProvenSources, RefusalLog, Shutdown};
use settings::Role;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::checks::{self, RefusedRequest};
use crate::hosts::Hosts;
use crate::layout::Frame;
use crate::live::{Live, Watcher};
use crate::login_limit::LoginLimit;
use crate::params::{Params, link};
use crate::reply::{self, HttpResponse, PageError, Reply};
use crate::router::{self, Visit};
use crate::sessions::{SessionTimes, Sessions};
use crate::signed_in::KnownPeople;
use crate::site::Site;
use crate::{api, assets, compress, pages};

use self::sign_in::cookie;

/// Most bytes of a form: a page of numbers is a tenth of it.
const MAX_FORM: usize = 64 << 10;

/// Longest time for a form to arrive, for a page, and for a change of many.
const FORM_WITHIN: Duration = Duration::from_secs(10);
const PAGE_WITHIN: Duration = Duration::from_secs(30);
const CHANGE_WITHIN: Duration = Duration::from_secs(90);

/// Most requests that ask the queue at once, and the longest wait of another.
const MAX_WORKING: usize = 16;
const WAIT_FOR_TURN: Duration = Duration::from_secs(10);

const LOGIN: &str = "/login";
const LOGOUT: &str = "/logout";

/// Where streams are: they lead nowhere else.
const LIVE: &str = "/live/";

/// What a server is made of.
pub(crate) struct ServerParts {
    pub(crate) operator: Operator,
    pub(crate) site: Site,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hosts: Hosts,
    pub(crate) people: KnownPeople,
    pub(crate) trace_url: Option<String>,
    pub(crate) times: SessionTimes,
    /// Browsers ask over TLS, which ends here or at a proxy.
    pub(crate) is_secure: bool,
    pub(crate) is_behind_proxy: bool,
    pub(crate) proven: ProvenSources,
    pub(crate) refusals: RefusalLog,
    pub(crate) shutdown: Shutdown,
}

/// Everything that answers requests.
pub(crate) struct Server {
    parts: ServerParts,
    sessions: Sessions,
    logins: LoginLimit,
    turns: Semaphore,
    live: Live,
}

/// A request that passed the checks.
struct CheckedRequest {
    /// The host and port that the browser asked for.
    authority: String,
    /// Whose connection it is: a browser's, or a proxy's.
    peer: ClientNetwork,
    from: ClientNetwork,
    is_post: bool,
    path: String,
    query: Params,
    cookie: Option<String>,
    last_id: String,
}

impl Server {
    pub(crate) fn new(parts: ServerParts) -> Self {
        Self {
            sessions: Sessions::new(parts.times),
            logins: LoginLimit::default(),
            turns: Semaphore::new(MAX_WORKING),
            live: Live::new(parts.shutdown.clone()),
            parts,
        }
    }

    /// Answers one request that came over a connection from this source.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: ClientNetwork,
    ) -> HttpResponse {
        let reads_gzip = compress::reads_gzip(request.headers());
        let response = self.answer_plain(request, peer).await;
        match reads_gzip {
            true => compress::compressed(response),
            false => response,
        }
    }

    async fn answer_plain(&self, request: Request<Incoming>, peer: ClientNetwork) -> HttpResponse {
        let (parts, body) = request.into_parts();
        let from = match self.parts.is_behind_proxy {
            true => checks::forwarded_for(&parts.headers).unwrap_or(peer),
            false => peer,
        };
        let is_open = self.parts.people.is_open();
        let is_secure = self.parts.is_secure;
        let authority = match checks::check(&parts, &self.parts.hosts, is_open, is_secure) {
            Ok(authority) => authority,
            Err(refusal) => return self.refuse(&refusal, from),
        };
        if let Some(file) = assets::find(parts.uri.path()) {
            return file;
        }
        let checked = self.checked(&parts, authority, peer, from);
        let form = match checked.is_post {
            false => Params::default(),
            true => match form(body).await {
                Ok(form) => form,
                Err(error) => return self.failed(&checked, None, &error),
            },
        };
        match (checked.is_post, checked.path.as_str()) {
            (true, LOGIN) => self.log_in(&checked, &form),
            (true, LOGOUT) => self.log_out(&checked),
            (false, LOGIN) => {
                self.login_page(&checked, StatusCode::OK, "", checked.query.get("next"))
            }
            _ => self.visit(&checked, form).await,
        }
    }

    fn checked(
        &self,
        parts: &Parts,
        authority: String,
        peer: ClientNetwork,
        from: ClientNetwork,
    ) -> CheckedRequest {
        let name = self.cookie_name(&authority);
        CheckedRequest {
            peer,
            from,
            is_post: parts.method == Method::POST,
            path: parts.uri.path().to_owned(),
            query: Params::parse(parts.uri.query().unwrap_or_default().as_bytes()),
            cookie: cookie(&parts.headers, &name),
            last_id: last_id(&parts.headers),
            authority,
        }
    }

    /// Shows a page, or makes a change, as whoever is signed in.
    async fn visit(&self, checked: &CheckedRequest, form: Params) -> HttpResponse {
        let Some(caller) = self.caller(checked) else {
            if checked.path.starts_with(LIVE) {
                return reply::plain(StatusCode::UNAUTHORIZED, "Sign in again.".to_owned());
            }
            return match checked.is_post {
                true => self.login_page(
                    checked,
                    StatusCode::UNAUTHORIZED,
                    "You are not signed in any more. Nothing was done.",
                    "/",
                ),
                false => reply::see(&link(LOGIN, &[("next", next_of(checked))])),
            };
        };
        self.parts.proven.note(checked.peer);
        let visit = Visit {
            api: api::api_of(&self.parts.operator, caller.clone()),
            jobs: api::jobs_of(&self.parts.operator, caller.clone()),
            caller: caller.clone(),
            params: if checked.is_post {
                form
            } else {
                checked.query.clone()
            },
            now: self.parts.clock.now(),
            clock: Arc::clone(&self.parts.clock),
            live: self.live.clone(),
            watcher: self.watcher(checked),
            trace_url: self.parts.trace_url.clone(),
        };
        match self.in_turn(checked, visit).await {
            Ok(Reply::Page(title, main)) => {
                let frame = self.frame(checked, Some(&caller));
                reply::page(StatusCode::OK, frame.page(title, &main))
            }
            Ok(Reply::See(place)) => reply::see(&place),
            Ok(Reply::File(file)) => reply::download(file),
            Ok(Reply::Live(body)) => reply::live(body),
            Err(error) => self.failed(checked, Some(&caller), &error),
        }
    }

    /// Who would look at a stream, and for how long it may.
    fn watcher(&self, checked: &CheckedRequest) -> Watcher {
        let people = self.parts.people.clone();
        let sessions = self.sessions.clone();
        let cookie = checked.cookie.clone();
        let name = match (people.is_open(), &cookie) {
            (false, Some(id)) => Some(id.clone()),
            _ => None,
        };
        let is_let = move || {
            let token = || sessions.peek(cookie.as_deref()?, Instant::now());
            let caller = || people.caller(&token()?);
            people.is_open() || caller().is_some_and(|caller| caller.may(&Role::Read))
        };
        Watcher {
            name,
            is_let: Arc::new(is_let),
            last_id: checked.last_id.clone(),
        }
    }

    /// Works when it is this request's turn, and for a bounded time.
    async fn in_turn(&self, checked: &CheckedRequest, visit: Visit) -> Result<Reply, PageError> {
        let late = |words: &str| PageError::new(StatusCode::SERVICE_UNAVAILABLE, words);
        let turn = timeout(WAIT_FOR_TURN, self.turns.acquire()).await;
        let _turn =
            turn.map_err(|_| late("Many pages are being asked for. Try again in a moment."))?;
        let within = if checked.is_post {
            CHANGE_WITHIN
        } else {
            PAGE_WITHIN
        };
        let answering = router::answer(checked.is_post, &checked.path, visit);
        match timeout(within, answering).await {
            Ok(answer) => answer,
            Err(_) => Err(late(
                "The queue did not answer in time. `fluent-webhooks status` says how it is.",
            )),
        }
    }

    fn failed(
        &self,
        checked: &CheckedRequest,
        who: Option<&Caller>,
        error: &PageError,
    ) -> HttpResponse {
        let main = pages::problem(error);
        let frame = self.frame(checked, who);
        let mut page = reply::page(error.status, frame.page(error.title(), &main));
        if error.status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = HeaderValue::from_static("GET, HEAD");
            page.headers_mut().insert(ALLOW, allowed);
        }
        page
    }

    /// Refuses a request of which nothing is believed: not even that a person reads the answer.
    fn refuse(&self, refusal: &RefusedRequest, from: ClientNetwork) -> HttpResponse {
        let (status, words) = described(refusal);
        if self.parts.refusals.admit_line("not for us", from) {
            tracing::info!(client = %from, reason = ?refusal, "request refused by the console");
        }
        // A page could be read by whoever made a name lead here, and would say whose console it is.
        let mut page = reply::plain(status, words);
        if *refusal == RefusedRequest::Method {
            let allowed = HeaderValue::from_static("GET, HEAD, POST");
            page.headers_mut().insert(ALLOW, allowed);
        }
        page
    }

    fn frame<'f>(&'f self, checked: &'f CheckedRequest, caller: Option<&'f Caller>) -> Frame<'f> {
        Frame {
            site: &self.parts.site,
            caller,
            has_login: !self.parts.people.is_open(),
            path: &checked.path,
            search: if checked.path == "/search" {
                checked.query.get("q")
            } else {
                ""
            },
        }
    }
}

/// The page that was asked for, to come back to after signing in.
fn next_of(checked: &CheckedRequest) -> String {
    link(&checked.path, checked.query.pairs())
}

/// The id of the last event that a browser had of a stream.
fn last_id(headers: &HeaderMap) -> String {
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    id.unwrap_or_default().to_owned()
}

async fn form(body: Incoming) -> Result<Params, PageError> {
    let read = timeout(FORM_WITHIN, Limited::new(body, MAX_FORM).collect()).await;
    let slow = |_| {
        PageError::new(
            StatusCode::REQUEST_TIMEOUT,
            "The form took too long to arrive.",
        )
    };
    let read = read.map_err(slow)?.map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => PageError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The form is larger than 64 KiB: choose fewer at once.",
            ),
            false => PageError::bad("The form did not arrive whole."),
        }
    })?;
    Ok(Params::parse(&read.to_bytes()))
}

fn described(refusal: &RefusedRequest) -> (StatusCode, String) {
    match refusal {
        RefusedRequest::ForeignHost => (
            StatusCode::MISDIRECTED_REQUEST,
            "This console is not known by the name that your browser asked for. Names of this machine are known; list others in `operator.console.hosts`.".to_owned(),
        ),
        RefusedRequest::NoHost => (
            StatusCode::BAD_REQUEST,
            "Expected one Host header.".to_owned(),
        ),
        RefusedRequest::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            "Expected GET or POST.".to_owned(),
        ),
        RefusedRequest::Proxied => (
            StatusCode::FORBIDDEN,
            "A proxy asks, and whoever comes through it could do everything: set `operator.tokens`, so that people have to sign in.".to_owned(),
        ),
        RefusedRequest::NotOurPage(why) => (
            StatusCode::FORBIDDEN,
            format!("Nothing was done. This was not asked for by a page of this console: {why}."),
        ),
    }
}
