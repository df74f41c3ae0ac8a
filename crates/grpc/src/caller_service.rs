//! Calls of a known caller within this process, by the same table of roles as those of a socket.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use crate::access::ensure_role;
use crate::caller::Caller;

/// A service that one caller calls within this process. A method that its roles do not allow is
/// answered as at a socket.
#[derive(Clone, Debug)]
pub struct CallerService<S> {
    inner: S,
    caller: Caller,
}

impl<S> CallerService<S> {
    /// Calls `inner` as `caller`.
    pub fn new(inner: S, caller: Caller) -> Self {
        Self { inner, caller }
    }
}

impl<S> Service<Request<Body>> for CallerService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(status) = ensure_role(&self.caller, request.uri().path()) {
            return Either::Right(ready(Ok(status.into_http())));
        }
        request.extensions_mut().insert(self.caller.clone());
        Either::Left(self.inner.call(request))
    }
}
