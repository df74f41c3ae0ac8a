//! Signing in and out: the form, the session, and its cookie.

use std::time::{Duration, Instant};

use grpc::{Caller, TokenDigest};
use hyper::StatusCode;
use hyper::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use settings::Role;
use sha2::{Digest, Sha256};

use super::{CheckedRequest, LIVE, LOGIN, Server};
use crate::pages;
use crate::params::Params;
use crate::reply::{self, HttpResponse};

impl Server {
    /// Who asks. `None` if somebody has to sign in.
    pub(super) fn caller(&self, checked: &CheckedRequest) -> Option<Caller> {
        if self.parts.people.is_open() {
            return Some(Caller::local("this machine"));
        }
        let id = checked.cookie.as_deref()?;
        // A page that is open asks for its stream again by itself: that is no use of the session.
        let token = match checked.path.starts_with(LIVE) {
            true => self.sessions.peek(id, Instant::now())?,
            false => self.sessions.find(id, Instant::now())?,
        };
        let caller = self.parts.people.caller(&token);
        if caller.is_none() {
            self.sessions.end(id);
        }
        caller
    }

    pub(super) fn log_in(&self, checked: &CheckedRequest, form: &Params) -> HttpResponse {
        let from = checked.from;
        let next = form.get("next");
        let attempt = match self.logins.begin(from, Instant::now()) {
            Ok(attempt) => attempt,
            Err(wait) => {
                let words =
                    "Ten wrong tokens came from your address in the last minute. Wait a minute.";
                let page = self.login_page(checked, StatusCode::TOO_MANY_REQUESTS, words, next);
                return reply::later(page, wait);
            }
        };
        let token = TokenDigest::of(form.get("token"));
        let Some(caller) = self.parts.people.caller(&token) else {
            if self.parts.refusals.admit_line("wrong token", from) {
                tracing::warn!(client = %from, "sign-in refused by the console: no such token");
            }
            let words = "No token of the settings is this one.";
            return self.login_page(checked, StatusCode::UNAUTHORIZED, words, next);
        };
        attempt.was_right();
        if !caller.may(&Role::Read) {
            let words = "This token has not the role read: it is not for people.";
            return self.login_page(checked, StatusCode::FORBIDDEN, words, next);
        }
        checked
            .cookie
            .as_deref()
            .inspect(|id| self.sessions.end(id));
        let Ok(id) = self.sessions.begin(token, Instant::now()) else {
            let words = "The system gives no random numbers: nobody can sign in now.";
            return self.login_page(checked, StatusCode::SERVICE_UNAVAILABLE, words, next);
        };
        tracing::info!(who = caller.name, client = %from, "signed in at the console");
        let mut response = reply::see(pages::local(next));
        self.set_cookie(&mut response, checked, &id, self.parts.times.oldest);
        response
    }

    pub(super) fn log_out(&self, checked: &CheckedRequest) -> HttpResponse {
        checked
            .cookie
            .as_deref()
            .inspect(|id| self.sessions.end(id));
        let mut response = reply::see(LOGIN);
        self.set_cookie(&mut response, checked, "", Duration::ZERO);
        response
    }

    pub(super) fn login_page(
        &self,
        checked: &CheckedRequest,
        status: StatusCode,
        problem: &str,
        next: &str,
    ) -> HttpResponse {
        if self.parts.people.is_open() {
            return reply::see("/");
        }
        let main = pages::login::form(pages::local(next), problem);
        reply::page(status, self.frame(checked, None).page("Sign in", &main))
    }

    /// The cookie's name. Cookies know no ports, and two consoles on one machine must not end
    /// each other's sessions.
    pub(super) fn cookie_name(&self, authority: &str) -> String {
        let digest = hex::encode(&Sha256::digest(authority)[..8]);
        match self.parts.is_secure {
            true => format!("__Host-fluent-{digest}"),
            false => format!("fluent-{digest}"),
        }
    }

    pub(super) fn set_cookie(
        &self,
        to: &mut HttpResponse,
        checked: &CheckedRequest,
        id: &str,
        lasts: Duration,
    ) {
        let name = self.cookie_name(&checked.authority);
        let secure = if self.parts.is_secure { "; Secure" } else { "" };
        let lasts = lasts.as_secs();
        let text = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax; Max-Age={lasts}{secure}");
        if let Ok(mut cookie) = HeaderValue::from_str(&text) {
            cookie.set_sensitive(true);
            to.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
}

/// The value of the cookie of this name.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(given, value)| (given == name).then(|| value.to_owned()))
}
