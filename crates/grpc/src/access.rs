//! The access to methods: callers, their roles, and the role that each method requires.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::BodyExt;
use settings::{CertificateSettings, OperatorSettings, Role};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::admission::{Peer, UNKNOWN_WITHIN, UnknownCall};
use crate::caller::Caller;
use crate::tokens::{TokenDigest, Tokens};

/// The one method that an unknown caller may call: it ends at once and reveals nothing.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Most characters of a method's name in the log. The contract's names are shorter.
const MOST_OF_METHOD: usize = 100;

const PACKAGE: &str = "/fluent.webhooks.v1.";

/// The role that a method requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Read,
    Operate,
    Admin,
    Dispatch,
    /// The role for one route, which is in the first message: the service checks it.
    SomeRoute,
}

/// Every method of the contract, with the role that it requires.
const METHODS: [(&str, Needs); 36] = [
    ("Dispatcher/Dispatch", Needs::Dispatch),
    ("Subscriptions/Subscribe", Needs::SomeRoute),
    ("Operator/GetStatus", Needs::Read),
    ("Operator/ListRoutes", Needs::Read),
    ("Operator/PauseRoute", Needs::Operate),
    ("Operator/ResumeRoute", Needs::Operate),
    ("Operator/RetryDelivery", Needs::Operate),
    ("Operator/SendTestEvent", Needs::Operate),
    ("Operator/GetEventBody", Needs::Operate),
    ("Operator/ForgetRoute", Needs::Admin),
    ("Operator/ListDeliveries", Needs::Read),
    ("Operator/ListEvents", Needs::Read),
    ("Operator/WatchDeliveries", Needs::Read),
    ("Operator/ShowEvents", Needs::Read),
    ("Operator/ListDeadLetters", Needs::Read),
    ("Operator/GetDeadLetter", Needs::Read),
    ("Operator/CountDeadLetters", Needs::Read),
    ("Operator/RedriveDeadLetters", Needs::Operate),
    ("Operator/DiscardDeadLetters", Needs::Admin),
    ("Operator/ListQuarantined", Needs::Read),
    ("Operator/GetQuarantined", Needs::Read),
    ("Operator/RedriveQuarantined", Needs::Operate),
    ("Operator/DiscardQuarantined", Needs::Admin),
    ("Operator/ListRefused", Needs::Read),
    ("Operator/ExplainRefused", Needs::Read),
    ("Operator/RecheckRefused", Needs::Operate),
    ("Operator/Replay", Needs::Admin),
    ("Operator/ListAudit", Needs::Admin),
    ("Jobs/PreviewJob", Needs::Read),
    ("Jobs/CreateJob", Needs::Operate),
    ("Jobs/GetJob", Needs::Read),
    ("Jobs/ListJobs", Needs::Read),
    ("Jobs/ListJobFailures", Needs::Read),
    ("Jobs/PauseJob", Needs::Operate),
    ("Jobs/ResumeJob", Needs::Operate),
    ("Jobs/CancelJob", Needs::Operate),
];

/// The access rules of one listener.
#[derive(Clone, Debug)]
pub struct Access(Arc<Rules>);

#[derive(Debug)]
enum Rules {
    /// Neither tokens nor certificates: every caller is on this machine.
    ThisMachine,
    Known {
        tokens: Tokens,
        certificates: HashMap<String, Caller>,
    },
}

impl Access {
    /// Reads the tokens that the settings name.
    ///
    /// # Errors
    /// If a file can't be read, or a token is too short or is there twice.
    pub fn open(settings: &OperatorSettings) -> anyhow::Result<Self> {
        if settings.tokens.is_empty() && settings.certificates.is_empty() {
            return Ok(Self(Arc::new(Rules::ThisMachine)));
        }
        let tokens = Tokens::read(&settings.tokens)?;
        let known = |CertificateSettings { name, roles }: &CertificateSettings| {
            (name.clone(), Caller::listed(name, roles.clone()))
        };
        let certificates = settings.certificates.iter().map(known).collect();
        Ok(Self(Arc::new(Rules::Known {
            tokens,
            certificates,
        })))
    }

    fn admit(&self, request: &Request<Body>) -> Result<Caller, Status> {
        let caller = self.caller(request).ok_or_else(|| {
            Status::unauthenticated(
                "expected `authorization: Bearer <token>` with a token of the settings",
            )
        })?;
        ensure_role(&caller, request.uri().path())?;
        Ok(caller)
    }

    fn caller(&self, request: &Request<Body>) -> Option<Caller> {
        match &*self.0 {
            Rules::ThisMachine => Some(Caller::local("this machine")),
            Rules::Known {
                tokens,
                certificates,
            } => {
                let peer = request.extensions().get::<Peer>();
                let shown = peer.and_then(|peer| peer.certificate.as_ref());
                by_token(tokens, request).or_else(|| by_certificate(certificates, shown?))
            }
        }
    }
}

fn by_token(tokens: &Tokens, request: &Request<Body>) -> Option<Caller> {
    let mut lines = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    tokens.caller(&TokenDigest::of(token)).cloned()
}

/// The caller whose name is in the certificate. TLS has checked its authority.
fn by_certificate(
    known: &HashMap<String, Caller>,
    shown: &CertificateDer<'static>,
) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(shown).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(name) => known.get(*name).cloned(),
            _ => None,
        })
}

/// Fails if the method at this path is unknown, or requires a role that the caller does not have.
pub(crate) fn ensure_role(caller: &Caller, path: &str) -> Result<(), Status> {
    let needs = needs(path).ok_or_else(|| Status::unimplemented("no such method"))?;
    let role = match needs {
        Some(Needs::Read) => Role::Read,
        Some(Needs::Operate) => Role::Operate,
        Some(Needs::Admin) => Role::Admin,
        Some(Needs::Dispatch) => Role::Dispatch,
        Some(Needs::SomeRoute) | None => return Ok(()),
    };
    caller.must(&role)
}

/// The role that this path requires: `None` for an unknown method, `Some(None)` for one that
/// every admitted caller may call.
fn needs(path: &str) -> Option<Option<Needs>> {
    let is_about_us =
        |path: &str| path.starts_with("/grpc.health.v1.") || path.starts_with("/grpc.reflection.");
    if is_about_us(path) {
        return Some(None);
    }
    let method = path.strip_prefix(PACKAGE)?;
    METHODS
        .iter()
        .find(|(name, _)| *name == method)
        .map(|(_, needs)| Some(*needs))
}

impl<S> Layer<S> for Access {
    type Service = AuthorizedService<S>;

    fn layer(&self, inner: S) -> AuthorizedService<S> {
        AuthorizedService {
            inner,
            access: self.clone(),
        }
    }
}

/// A service that only admitted calls reach.
#[derive(Clone, Debug)]
pub struct AuthorizedService<S> {
    inner: S,
    access: Access,
}

impl<S> Service<Request<Body>> for AuthorizedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        match self.access.admit(&request) {
            Ok(caller) => {
                if let Some(peer) = peer {
                    peer.admission.admit();
                }
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            // Load balancers ask for health without credentials.
            Err(_) if request.uri().path() == HEALTH_CHECK => {
                match peer.as_ref().map(begin_unknown) {
                    Some(None) => refused(Status::resource_exhausted(
                        "one call at a time without a token",
                    )),
                    call => answer_unknown(self.inner.call(request), call.flatten()),
                }
            }
            Err(status) => {
                if peer
                    .as_ref()
                    .is_none_or(|peer| peer.admission.has_line("call refused"))
                {
                    let peer = peer.map(|peer| peer.address.to_string());
                    // The path is chosen by the caller, and may have any length.
                    let method: String =
                        request.uri().path().chars().take(MOST_OF_METHOD).collect();
                    tracing::warn!(peer, method, code = ?status.code(), "call refused");
                }
                refused(status)
            }
        }
    }
}

type Answer<E> = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

fn refused<E: Send + 'static>(status: Status) -> Answer<E> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

fn begin_unknown(peer: &Peer) -> Option<UnknownCall> {
    peer.admission.begin_unknown()
}

/// A body whose trailers end the call, so that a caller that has read them may ask again at once.
fn ending_with(body: Body, mut call: Option<UnknownCall>) -> Body {
    Body::new(body.map_frame(move |frame| {
        if frame.is_trailers() {
            drop(call.take());
        }
        frame
    }))
}

/// Answers an unknown caller within a short time. The call ends with the end of its answer.
fn answer_unknown<E: Send + 'static>(
    answering: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
    call: Option<UnknownCall>,
) -> Answer<E> {
    Box::pin(async move {
        match timeout(UNKNOWN_WITHIN, answering).await {
            Ok(answer) => Ok(answer?.map(|body| ending_with(body, call))),
            Err(_) => Ok(Status::deadline_exceeded("it took too long").into_http()),
        }
    })
}
