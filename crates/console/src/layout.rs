//! The frame of every page: where one is, who one is, and where else to go.

use grpc::Caller;
use maud::{DOCTYPE, Markup, html};
use settings::Role;

use crate::assets::{ICON, LIVE, SCRIPT, STYLE};
use crate::site::Site;
use crate::text::shown;

/// The pages in the bar. The audit log is for administrators.
const PAGES: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/events", "Events"),
    ("/deliveries", "Deliveries"),
    ("/dead-letters", "Dead letters"),
    ("/unrouted", "Unrouted"),
    ("/quarantine", "Quarantine"),
    ("/refused", "Refused"),
    ("/routes", "Routes"),
    ("/jobs", "Jobs"),
];
const AUDIT: (&str, &str) = ("/audit", "Audit");

/// What the frame says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'f> {
    pub(crate) site: &'f Site,
    /// Who is signed in.
    pub(crate) caller: Option<&'f Caller>,
    /// True if people sign in here.
    pub(crate) has_login: bool,
    pub(crate) path: &'f str,
    /// What was searched for.
    pub(crate) search: &'f str,
}

impl<'f> Frame<'f> {
    /// A whole page.
    pub(crate) fn page(&self, title: &str, main: &Markup) -> Markup {
        let connector = shown(self.site.connector());
        let environment = self.site.environment();
        let version = env!("CARGO_PKG_VERSION");
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · " (connector) " · " (environment) " · fluent-webhooks " (version) }
                    link rel="icon" href=(ICON.path());
                    link rel="stylesheet" href=(STYLE.path());
                    script src=(SCRIPT.path()) defer {}
                    script src=(LIVE.path()) defer {}
                }
                body class=(self.site.look()) {
                    a class="skip" href="#main" { "Skip to the content" }
                    (self.bar(&connector, &environment))
                    main id="main" tabindex="-1" {
                        h1 { (title) }
                        (main)
                    }
                    footer { "fluent-webhooks " (version) " · " (connector) " · " (environment) " · " span data-zone { "times are UTC" } }
                }
            }
        }
    }

    fn bar(&self, connector: &str, environment: &str) -> Markup {
        html! {
            header {
                p class="site" {
                    strong { (connector) }
                    " " span class="environment" { (environment) }
                    " " span class="version" { (env!("CARGO_PKG_VERSION")) }
                }
                @if let Some(caller) = self.caller {
                    (self.search_box())
                    (self.person(caller))
                    (self.nav(caller))
                }
            }
        }
    }

    fn search_box(&self) -> Markup {
        html! {
            form class="search" role="search" action="/search" {
                label for="q" { "Order, ref, event id or event name" }
                input id="q" name="q" type="search" value=(shown(self.search)) maxlength="1024" autocomplete="off" spellcheck="false";
                button { "Search" }
            }
        }
    }

    fn person(&self, caller: &Caller) -> Markup {
        html! {
            div class="person" {
                span { "You are " strong { (shown(&caller.name)) } }
                @if self.has_login {
                    form method="post" action="/logout" { button { "Sign out" } }
                }
            }
        }
    }

    fn nav(&self, caller: &Caller) -> Markup {
        let audit = caller.may(&Role::Admin).then_some(AUDIT);
        let is_here = |path: &str| match path {
            "/" => self.path == "/",
            _ => self.path == path || self.path.starts_with(&format!("{path}/")),
        };
        html! {
            nav aria-label="Pages" {
                ul {
                    @for (path, name) in PAGES.into_iter().chain(audit) {
                        li {
                            a href=(path) aria-current=[is_here(path).then_some("page")] { (name) }
                        }
                    }
                }
            }
        }
    }
}
