//! What dispatchers share beside their seam: texts made of an event, and secrets
//! in files that others may replace.
//!
//! A dispatcher needs none of it. Start reading at [`Template`].

mod secret;
mod template;

pub use crate::secret::{Secret, SecretFile};
pub use crate::template::{Template, View, read_template};
