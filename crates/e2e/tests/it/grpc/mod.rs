//! Handlers in other processes and languages, and people at the operator's API.

mod audited;
mod commands;
mod elsewhere;
pub(crate) mod languages;
mod operating;
mod page_sizes;
mod pages;
mod refused;
mod remote;
mod roles;
mod subscriber;
mod subscriptions;
mod watching;
