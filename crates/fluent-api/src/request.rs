//! Requests to Fluent, and what of their answers is read.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use http_client::{Answer, HttpClient, RequestParts, uri_of, usual_headers};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::error::ApiError;

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer: its status is known, whatever is wrong with the rest.
#[derive(Debug)]
pub(crate) struct FluentAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, ApiError>,
}

impl Request {
    pub(crate) fn get(url: Url, parameters: &[(&str, String)]) -> Self {
        let mut request = Self::new(Method::GET, url);
        request.url.query_pairs_mut().extend_pairs(parameters);
        request
    }

    pub(crate) fn post_json(url: Url, body: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Unreachable(error.into()))?;
        Ok(Self::post(url, "application/json", body.into()))
    }

    pub(crate) fn post_form(url: Url, form: &[(&str, &str)]) -> Self {
        let mut body = Serializer::new(String::new());
        body.extend_pairs(form);
        let kind = "application/x-www-form-urlencoded";
        Self::post(url, kind, body.finish().into())
    }

    fn post(url: Url, kind: &'static str, body: Bytes) -> Self {
        let mut request = Self::new(Method::POST, url);
        let kind = HeaderValue::from_static(kind);
        request.headers.insert(CONTENT_TYPE, kind);
        Self { body, ..request }
    }

    fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: usual_headers(),
            body: Bytes::new(),
        }
    }

    /// Adds a header. Its value is not repeated in errors.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Result<Self, ApiError> {
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            ApiError::Unreachable(format!("the value of `{name}` can't be a header's").into())
        })?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(crate) fn authorized(self, token: &str) -> Result<Self, ApiError> {
        self.with(AUTHORIZATION, &format!("Bearer {token}"))
    }

    /// Sends it. At most `most` bytes of the answer's body are read, all within this time.
    pub(crate) async fn send(
        self,
        http: &HttpClient,
        within: Duration,
        most: usize,
    ) -> Result<FluentAnswer, ApiError> {
        let parts = RequestParts {
            method: self.method,
            uri: uri_of(&self.url).map_err(ApiError::Unreachable)?,
            headers: self.headers,
            body: self.body,
        };
        let deadline = Instant::now() + within;
        let answer = timeout_at(deadline, http.send(parts, deadline)).await;
        match answer.map_err(|_| ApiError::TimedOut)?? {
            Answer::Readable(response) => {
                let (head, body) = response.into_parts();
                let body = timeout_at(deadline, read(body, most)).await;
                Ok(FluentAnswer {
                    status: head.status,
                    headers: head.headers,
                    body: body.unwrap_or(Err(ApiError::TimedOut)),
                })
            }
            Answer::StatusOnly(status, why) => Ok(FluentAnswer {
                status,
                headers: HeaderMap::new(),
                body: Err(why.into()),
            }),
        }
    }
}

async fn read(mut body: Incoming, most: usize) -> Result<Bytes, ApiError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::Unreachable(error.into()))?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        if read.len() + bytes.len() > most {
            return Err(ApiError::TooLong(most));
        }
        read.extend_from_slice(bytes);
    }
    // A byte order mark is no part of the text.
    if read.starts_with("\u{feff}".as_bytes()) {
        read.advance("\u{feff}".len());
    }
    Ok(read.freeze())
}
