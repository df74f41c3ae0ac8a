//! What dispatchers share beside their seam: texts made of an event, secrets in
//! files that others may replace, and which way a secret may go.
//!
//! A dispatcher needs none of it. Start reading at [`Template`].

mod bom;
mod comparison;
mod fields;
mod filters;
mod json_text;
mod named;
mod numbers;
mod operators;
mod plaintext;
mod sample;
mod secret;
mod template;

pub use crate::bom::without_bom;
pub use crate::plaintext::{PlaintextCredential, is_this_machine};
pub use crate::secret::{Secret, SecretFile};
pub use crate::template::{Template, View, read_template};
