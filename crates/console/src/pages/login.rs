//! Signing in.

use maud::{Markup, html};

/// The form for a token, with the reason why it is asked for again.
pub(crate) fn form(next: &str, problem: &str) -> Markup {
    html! {
        @if !problem.is_empty() {
            div class="box bad" role="alert" { p { (problem) } }
        }
        form class="login" method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            // For password managers, which keep a secret under a name. It is not sent.
            input type="text" autocomplete="username" value="console" hidden;
            label {
                "Your token"
                input name="token" type="password" required autofocus autocomplete="current-password" maxlength="4096";
            }
            button { "Sign in" }
        }
        p class="soft" {
            "Tokens are the files that " code { "operator.tokens" } " of the settings names. A session lasts 12 hours, and an hour without use."
        }
    }
}
