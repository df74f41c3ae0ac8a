//! GraphQL queries: parsed and checked once, and sent often.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_graphql_parser::parse_query;
use async_graphql_parser::types::{BaseType, DocumentOperations, OperationType};
use event_model::{ExactJson, ExactValue};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::errors_in;
use crate::client::{Client, RequiredPart, under};
use crate::error::ApiError;
use crate::request::Request;

/// Longest query, in bytes: Fluent accepts 2 MB, with the variables.
const LONGEST: usize = 1 << 20;

/// Longest answer, in bytes: it is handed on with the event, also over gRPC.
const LONGEST_ANSWER: usize = 1 << 20;

/// A query, checked for syntax.
#[derive(Clone, Debug)]
pub struct Query {
    text: Arc<str>,
    variables: Vec<Variable>,
}

/// A variable that a query declares.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    /// Name of its type, such as `ID` or `Int`.
    type_name: Option<String>,
    is_required: bool,
}

/// Reason for which a text is no query that can be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It is not valid GraphQL from here on.
    #[error("line {line}, column {column}: expected GraphQL")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It is not exactly one query.
    #[error("expected one query, and no mutation or subscription")]
    NotOneQuery,
    /// Too long.
    #[error("expected at most {LONGEST} bytes")]
    TooLong,
    /// It declares a variable that the settings do not give.
    #[error("the query needs the variable `${0}`, which is not given")]
    Missing(String),
    /// The settings give a variable that it does not declare.
    #[error("the query has no variable `${0}`")]
    Unknown(String),
}

impl Query {
    /// Parses a query: one operation that only reads, and any fragments.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > LONGEST {
            return Err(QueryError::TooLong);
        }
        let document = parse_query(text).map_err(|error| {
            let place = error.positions().next();
            let (line, column) = place.map_or((1, 1), |place| (place.line, place.column));
            QueryError::Syntax { line, column }
        })?;
        let operation = match document.operations {
            DocumentOperations::Single(operation) => operation.node,
            DocumentOperations::Multiple(named) if named.len() == 1 => {
                named
                    .into_values()
                    .next()
                    .ok_or(QueryError::NotOneQuery)?
                    .node
            }
            DocumentOperations::Multiple(_) => return Err(QueryError::NotOneQuery),
        };
        if operation.ty != OperationType::Query {
            return Err(QueryError::NotOneQuery);
        }
        let variables = operation
            .variable_definitions
            .into_iter()
            .map(|definition| {
                let definition = definition.node;
                let has_default = definition.default_value.is_some();
                let declared = definition.var_type.node;
                Variable {
                    name: definition.name.node.to_string(),
                    type_name: match declared.base {
                        BaseType::Named(name) => Some(name.to_string()),
                        BaseType::List(_) => None,
                    },
                    is_required: !declared.nullable && !has_default,
                }
            });
        Ok(Self {
            variables: variables.collect(),
            text: text.into(),
        })
    }

    /// Checks that these variables are the ones that it needs.
    pub fn check(&self, given: &BTreeSet<&str>) -> Result<(), QueryError> {
        let is_missing =
            |variable: &&Variable| variable.is_required && !given.contains(variable.name.as_str());
        if let Some(missing) = self.variables.iter().find(is_missing) {
            return Err(QueryError::Missing(missing.name.clone()));
        }
        match given
            .iter()
            .find(|name| !self.variables.iter().any(|known| known.name == **name))
        {
            Some(unknown) => Err(QueryError::Unknown((*unknown).to_owned())),
            None => Ok(()),
        }
    }

    /// Whether it declares a variable of this name.
    pub fn asks_for(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable.name == name)
    }

    /// Converts a text to a variable's value, of the type that the query declares. A number is
    /// sent as it is written.
    pub fn value(&self, name: &str, text: String) -> VariableValue {
        let declared = self.variables.iter().find(|variable| variable.name == name);
        let parsed = match declared.and_then(|variable| variable.type_name.as_deref()) {
            Some("Int" | "Float" | "Boolean") => serde_json::from_str(&text).ok(),
            _ => None,
        };
        match parsed {
            Some(json) => VariableValue(Sent::Json(json)),
            None => VariableValue(Sent::Text(text)),
        }
    }
}

/// The value of a query's variable. Numbers have the digits that were written.
///
/// ```
/// let query = fluent_api::Query::parse("query ($n: Float) { a(n: $n) }")?;
/// let value = query.value("n", "1.10".to_owned());
/// assert_eq!(serde_json::to_string(&value).unwrap(), "1.10");
/// # Ok::<(), fluent_api::QueryError>(())
/// ```
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct VariableValue(Sent);

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Sent {
    Json(Box<RawValue>),
    Text(String),
}

/// Shows the size, never the content.
impl fmt::Debug for VariableValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = match &self.0 {
            Sent::Json(json) => json.get().len(),
            Sent::Text(text) => text.len(),
        };
        write!(f, "VariableValue({length} bytes)")
    }
}

impl PartialEq<Value> for VariableValue {
    fn eq(&self, other: &Value) -> bool {
        serde_json::to_value(self).is_ok_and(|value| value == *other)
    }
}

#[derive(Serialize)]
struct Question<'q, V> {
    query: &'q str,
    variables: &'q V,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Box<RawValue>>,
    errors: Option<Vec<Box<RawValue>>>,
}

impl Client {
    /// Sends a query, and returns the answer's `data`. If everything in it is null, nothing was
    /// found. `variables` is an object by name.
    pub async fn graphql(
        &self,
        query: &Query,
        variables: &impl Serialize,
    ) -> Result<ExactJson, ApiError> {
        let body = Question {
            query: &query.text,
            variables,
        };
        let answer = self
            .ask(RequiredPart::Body, |base| {
                Request::post_json(under(base, "graphql"), &body)
            })
            .await?;
        if answer.len() > LONGEST_ANSWER {
            return Err(ApiError::TooLong(LONGEST_ANSWER));
        }
        let understood: Answer = serde_json::from_slice(&answer)
            .map_err(|_| ApiError::Unreadable("expected GraphQL's answer"))?;
        // Without the part that could not be read, the data would say something else.
        if understood.errors.is_some_and(|errors| !errors.is_empty()) {
            return Err(ApiError::of_answer(&errors_in(&answer), StatusCode::OK));
        }
        let Some(data) = understood.data else {
            return Err(ApiError::NotFound);
        };
        let unreadable = |_| ApiError::Unreadable("expected GraphQL's answer");
        let data = ExactJson::parse(data.get()).map_err(unreadable)?;
        match data.value() {
            ExactValue::Table(fields)
                if fields.values().any(|value| *value != ExactValue::Null) =>
            {
                Ok(data)
            }
            _ => Err(ApiError::NotFound),
        }
    }
}
