//! The console in a real Chromium.

mod everybody;
mod live;
mod order;

use e2e::browser::Browser;

use crate::pipeline::{Pipeline, free_ports};

/// The token of `ops`.
const TOKEN: &str = "ops-0123456789abcdef";

/// A console for `ops`, beside a pipeline with these routes.
fn with_console(routes: &str, more: &str) -> (Pipeline, u16) {
    let mut pipeline = Pipeline::prepare(routes);
    let [console] = free_ports();
    std::fs::write(pipeline.folder.path().join("ops"), TOKEN).unwrap();
    pipeline.more = format!(
        "  operator: {{ console: {{ listen: \"{console}\"{more} }}, tokens: [{{ name: ops, file: ops, roles: [admin] }}] }}\n"
    );
    pipeline.write_settings(routes);
    (pipeline, console.port())
}

async fn sign_in(browser: &Browser, url: &str) {
    browser.visit(url).await.unwrap();
    browser.type_into("input[name=token]", TOKEN).await.unwrap();
    browser.click("Sign in").await.unwrap();
    browser.until_shown("Overview").await.unwrap();
}
