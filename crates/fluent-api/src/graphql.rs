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
    /// Name of its type, such as `ID` or `Int`; of a list, that of its items.
    type_name: String,
    /// How many lists are around its items.
    depth: usize,
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
                let (type_name, depth) = items_of(&declared.base);
                Variable {
                    name: definition.name.node.to_string(),
                    type_name,
                    depth,
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
    /// sent as it is written; a list is one if the text is a JSON array.
    pub fn value(&self, name: &str, text: String) -> VariableValue {
        let declared = self.variables.iter().find(|variable| variable.name == name);
        let json = declared.and_then(|declared| declared.json(&text));
        VariableValue(json.map_or(Sent::Text(text), Sent::Json))
    }
}

/// The name of the type of a list's items, or of the type itself, and how many lists are around.
fn items_of(base: &BaseType) -> (String, usize) {
    match base {
        BaseType::Named(name) => (name.to_string(), 0),
        BaseType::List(items) => {
            let (name, depth) = items_of(&items.base);
            (name, depth + 1)
        }
    }
}

impl Variable {
    /// The value that a text stands for; `None` for the text itself.
    fn json(&self, text: &str) -> Option<Box<RawValue>> {
        let is_list = self.depth > 0 && text.trim_start().starts_with('[');
        match self.type_name.as_str() {
            "Int" | "Float" | "Boolean" => serde_json::from_str(text).ok(),
            // Numbers are ids and texts as they are written.
            "ID" | "String" if is_list => {
                let list = texts(serde_json::from_str(text).ok()?, self.depth)?;
                RawValue::from_string(list).ok()
            }
            _ if is_list => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}

/// A JSON array whose numbers are texts, also in arrays within it; `None` if these are nested
/// deeper than was declared.
fn texts(array: Vec<&RawValue>, depth: usize) -> Option<String> {
    let items = array.into_iter().map(|item| {
        let written = item.get();
        match written.as_bytes() {
            [b'[', ..] if depth > 1 => texts(serde_json::from_str(written).ok()?, depth - 1),
            [b'[', ..] => None,
            [b'-' | b'0'..=b'9', ..] => Some(format!("\"{written}\"")),
            _ => Some(written.to_owned()),
        }
    });
    let items: Vec<String> = items.collect::<Option<_>>()?;
    Some(format!("[{}]", items.join(",")))
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
        let understood: Answer = serde_json::from_slice(&answer)
            .map_err(|_| ApiError::Unreadable("expected GraphQL's answer"))?;
        // Without the part that could not be read, the data would say something else.
        if understood.errors.is_some_and(|errors| !errors.is_empty()) {
            return Err(ApiError::of_answer(
                &errors_in(&answer),
                StatusCode::OK,
                None,
            ));
        }
        if answer.len() > LONGEST_ANSWER {
            return Err(ApiError::TooLong(LONGEST_ANSWER));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_the_type_that_is_declared_with_the_digits_that_were_written() {
        for (declared, text, sent) in [
            ("Int", "12", "12"),
            ("Float!", "1.10", "1.10"),
            ("ID", "1.10", r#""1.10""#),
            ("String", "[1]", r#""[1]""#),
            ("[Int!]", "[1, 2]", "[1, 2]"),
            (
                "[Float]",
                "[1.10,9405511899560000000001]",
                "[1.10,9405511899560000000001]",
            ),
            ("[Float]", "1.10", "1.10"),
            ("[[Int!]!]!", "[[1],[]]", "[[1],[]]"),
            ("[Boolean]", "[true, null]", "[true, null]"),
            ("[ID!]", r#"["a", 1.10, null]"#, r#"["a","1.10",null]"#),
            ("[[String]]", r#"[["a\"", 1e3]]"#, r#"[["a\"","1e3"]]"#),
            ("[String]", "a", r#""a""#),
            ("[String]", "['a']", r#""['a']""#),
            ("[Status]", r#"["NEW"]"#, r#"["NEW"]"#),
            ("[ID]", "[[1]]", r#""[[1]]""#),
            ("[Int]", "many", r#""many""#),
        ] {
            let query = Query::parse(&format!("query ($v: {declared}) {{ a(v: $v) }}")).unwrap();
            let value = query.value("v", text.to_owned());
            let made = serde_json::to_string(&value).unwrap();
            assert_eq!(made, sent, "{declared}: {text}");
        }
    }
}
