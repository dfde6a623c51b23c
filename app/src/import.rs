//! Reads scores that other programs (or Headlight itself) gave the loaded model's heads. Accepted are
//!
//! - a report of `headlight detect` or `headlight sweep`;
//! - JSON `{"metric": [[number per head] per layer], …}`; what is no table of numbers is passed over;
//! - JSON `[{"layer": 0, "head": 1, "metric": number, …}, …]`, one row a head;
//! - CSV with the columns `layer`, `head` and one a metric, one row a head; rows whose head is `mlp` are passed over, so that
//!   the head map's own export reads back.
//!
//! Every metric must have a finite number for every head of the model. A file that breaks a rule is refused as a whole.

use std::collections::BTreeMap;

use headlight_core::ids::HeadId;
use serde_json::{Map, Value};

/// Largest file, bytes: a thousand metrics of a thousand heads fit.
pub const MAX_BYTES: usize = 8 << 20;
/// Most metrics of one file.
const MAX_METRICS: usize = 24;
/// Columns of the head map's export that are no scores.
const NO_METRICS: [&str; 3] = ["spread", "rank", "edited"];

/// One metric of a file: a number for every head.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The file's name.
    pub file: String,
    /// The metric's name.
    pub metric: String,
    /// `[layer][head]`.
    pub scores: Vec<Vec<f32>>,
    /// Whether the numbers are effects, which are ranked by size.
    pub is_effect: bool,
    /// sha256 of the weights that it was measured on, where the file says so.
    pub model_sha256: Option<String>,
    /// Whether it came with a link, which rounds to a thousandth of the largest number.
    pub is_rounded: bool,
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// More than is read.
    #[error(
        "it is {size_bytes} bytes long and at most {MAX_BYTES} are read; keep one number a head and metric"
    )]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// No JSON and no CSV.
    #[error(
        "it is neither JSON nor a CSV file with the columns layer, head and one a metric ({cause}); a report of `headlight detect` or `sweep` works, and so does {{\"metric\": [[number per head] per layer]}}"
    )]
    Unknown {
        /// What the reader said.
        cause: String,
    },
    /// Not a number, where one must be.
    #[error("{place} of \"{metric}\" is {found}; every head needs a finite number there")]
    NotFinite {
        /// The metric.
        metric: String,
        /// Where.
        place: String,
        /// What stands there.
        found: String,
    },
    /// NaN or infinity somewhere in JSON, which has no spelling for them.
    #[error("it holds NaN or Infinity, which are no numbers in JSON; every head needs a finite number")]
    NanInJson,
    /// Another model's table.
    #[error(
        "\"{metric}\" has {found} and the loaded model {n_layers} layers of {n_heads} heads; load the model that it was measured on"
    )]
    Shape {
        /// The metric.
        metric: String,
        /// What the table has.
        found: String,
        /// Layers of the model.
        n_layers: usize,
        /// Heads a layer.
        n_heads: usize,
    },
    /// A head without a row.
    #[error("{head} has no row; give every head of the model one")]
    MissingHead {
        /// The head.
        head: HeadId,
    },
    /// A head with several.
    #[error("{head} has two rows; give every head one")]
    HeadTwice {
        /// The head.
        head: HeadId,
    },
    /// A row whose layer or head is no index.
    #[error("row {row} names no head; give layer and head as whole numbers from 0 on")]
    NoHead {
        /// The row, from 1.
        row: usize,
    },
    /// Nothing that could colour the map.
    #[error("it holds no table of numbers with one row a layer and one number a head")]
    NoMetric,
    /// A sweep of MLPs.
    #[error("this sweep is of MLPs and the map shows heads; run it with --targets heads")]
    OfMlps,
    /// More metrics than a menu holds.
    #[error("it holds {n_metrics} metrics and at most {MAX_METRICS} are read; split it")]
    TooMany {
        /// How many.
        n_metrics: usize,
    },
}

type Tables = Vec<(String, Vec<Vec<f32>>)>;

/// The metrics of a file, for a model of this shape.
pub fn read(file: &str, text: &str, n_layers: usize, n_heads: usize) -> Result<Vec<Imported>, ImportError> {
    if text.len() > MAX_BYTES {
        return Err(ImportError::TooLarge { size_bytes: text.len() });
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    let shape = Shape { n_layers, n_heads };
    let (mut is_effect, mut model_sha256) = (false, None);
    let tables = if text.starts_with(['{', '[']) {
        match parse_json(text)? {
            Value::Object(object) => {
                model_sha256 = object
                    .get("provenance")
                    .and_then(|provenance| provenance["model_sha256"].as_str())
                    .map(str::to_owned);
                is_effect = object.contains_key("effects") && object.contains_key("metric");
                shape.of_object(object)?
            }
            Value::Array(rows) => shape.of_rows(&rows)?,
            _ => Vec::new(),
        }
    } else {
        shape.of_csv(text)?
    };
    match tables.len() {
        0 => Err(ImportError::NoMetric),
        n_metrics if n_metrics > MAX_METRICS => Err(ImportError::TooMany { n_metrics }),
        _ => Ok(tables
            .into_iter()
            .map(|(metric, scores)| Imported {
                file: file.to_owned(),
                metric,
                scores,
                is_effect,
                model_sha256: model_sha256.clone(),
                is_rounded: false,
            })
            .collect()),
    }
}

fn parse_json(text: &str) -> Result<Value, ImportError> {
    serde_json::from_str(text).map_err(|error| {
        let cause = error.to_string();
        // Python writes them unless told otherwise.
        let has_nan = text.contains("NaN") || text.contains("Infinity") || cause.contains("out of range");
        if has_nan { ImportError::NanInJson } else { ImportError::Unknown { cause } }
    })
}

/// The loaded model's shape.
#[derive(Clone, Copy)]
struct Shape {
    n_layers: usize,
    n_heads: usize,
}

impl Shape {
    /// A report, or tables by metric.
    fn of_object(self, mut object: Map<String, Value>) -> Result<Tables, ImportError> {
        let name = |value: &Value| value.as_str().map(str::to_owned);
        if let (Some(metric), Some(scores)) = (object.get("detector").and_then(name), object.get("scores")) {
            return Ok(vec![(metric.replace('_', " "), self.table(&metric, scores)?)]);
        }
        if let (Some(metric), Some(effects)) = (object.get("metric").and_then(name), object.get("effects")) {
            if object.get("request").is_some_and(|request| request["targets"] == "mlps") {
                return Err(ImportError::OfMlps);
            }
            return Ok(vec![(format!("effect, {metric}"), self.table(&metric, effects)?)]);
        }
        // The head map's own export holds rows.
        if let Some(Value::Array(rows)) = object.get_mut("heads").filter(|heads| heads[0].is_object()) {
            return self.of_rows(&std::mem::take(rows));
        }
        let is_table = |value: &Value| {
            value.as_array().is_some_and(|rows| !rows.is_empty() && rows.iter().all(Value::is_array))
        };
        let tables = object.iter().filter(|(_, value)| is_table(value));
        tables.map(|(metric, value)| Ok((metric.clone(), self.table(metric, value)?))).collect()
    }

    /// A table `[layer][head]`.
    fn table(self, metric: &str, value: &Value) -> Result<Vec<Vec<f32>>, ImportError> {
        let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let widths: Vec<usize> = rows.iter().map(|row| row.as_array().map_or(0, Vec::len)).collect();
        if rows.len() != self.n_layers || widths.iter().any(|&width| width != self.n_heads) {
            let odd = widths.iter().find(|&&width| width != self.n_heads).or(widths.first());
            let found = format!("{} rows of {} numbers", rows.len(), odd.copied().unwrap_or_default());
            return Err(self.misfit(metric, found));
        }
        let row = |(layer, row): (usize, &Value)| {
            let values = row.as_array().into_iter().flatten().enumerate();
            values
                .map(|(head, value)| finite(metric, &HeadId::new(layer, head).to_string(), value))
                .collect::<Result<Vec<f32>, _>>()
        };
        rows.iter().enumerate().map(row).collect()
    }

    fn misfit(self, metric: &str, found: String) -> ImportError {
        let Self { n_layers, n_heads } = self;
        ImportError::Shape { metric: metric.to_owned(), found, n_layers, n_heads }
    }

    /// Rows `{"layer": …, "head": …, "<metric>": …}`.
    fn of_rows(self, rows: &[Value]) -> Result<Tables, ImportError> {
        let mut found = Rows::default();
        for (index, row) in rows.iter().enumerate() {
            if row["head"] == "mlp" {
                continue;
            }
            let at = |name: &str| row[name].as_u64().and_then(|value| usize::try_from(value).ok());
            let head = at("layer").zip(at("head")).ok_or(ImportError::NoHead { row: index + 1 })?;
            let metrics = row.as_object().into_iter().flatten();
            let metrics = metrics.filter(|(name, _)| is_metric(name));
            found.add(
                HeadId::new(head.0, head.1),
                metrics.map(|(name, value)| (name.as_str(), value.clone())),
            )?;
        }
        self.of_found(found)
    }

    /// The same as CSV.
    fn of_csv(self, text: &str) -> Result<Tables, ImportError> {
        let unknown = |cause: &str| ImportError::Unknown { cause: cause.to_owned() };
        let mut records = csv_records(text).into_iter();
        let names = records.next().unwrap_or_default();
        let column = |name: &str| names.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        let (layer, head) = column("layer")
            .zip(column("head"))
            .ok_or_else(|| unknown("its first line names no layer and head"))?;
        let mut found = Rows::default();
        for (index, record) in records.enumerate() {
            let field = |column: usize| record.get(column).map_or("", |field| field.trim());
            if field(head) == "mlp" {
                continue;
            }
            let place = field(layer).parse().ok().zip(field(head).parse().ok());
            let (layer_idx, head_idx) = place.ok_or(ImportError::NoHead { row: index + 1 })?;
            let metrics = names
                .iter()
                .enumerate()
                .filter(|&(column, name)| column != layer && column != head && is_metric(name.trim()));
            let value = |text: &str| match text.parse::<f64>() {
                _ if text.is_empty() => Value::Null,
                Ok(number) if number.is_finite() => Value::from(number),
                _ => Value::from(text),
            };
            let metrics = metrics.map(|(column, name)| (name.trim(), value(field(column))));
            found.add(HeadId::new(layer_idx, head_idx), metrics)?;
        }
        self.of_found(found)
    }

    fn of_found(self, found: Rows) -> Result<Tables, ImportError> {
        let is_outside = |head: &&HeadId| head.layer >= self.n_layers || head.head >= self.n_heads;
        if let Some(head) = found.heads.keys().find(is_outside) {
            return Err(self.misfit(&head.to_string(), "a row".to_owned()));
        }
        // A column without a single value is none.
        let is_there = |metric: &&String| {
            found.heads.values().any(|row| row.get(*metric).is_some_and(|value| !value.is_null()))
        };
        let tables = found.metrics.iter().filter(is_there).map(|metric| {
            let cell = |layer: usize, head: usize| {
                let head = HeadId::new(layer, head);
                let row = found.heads.get(&head).ok_or(ImportError::MissingHead { head })?;
                finite(metric, &head.to_string(), row.get(metric).unwrap_or(&Value::Null))
            };
            let row =
                |layer| (0..self.n_heads).map(|head| cell(layer, head)).collect::<Result<Vec<f32>, _>>();
            Ok((metric.clone(), (0..self.n_layers).map(row).collect::<Result<Vec<_>, ImportError>>()?))
        });
        tables.collect()
    }
}

/// Rows by head, and the metrics in the order in which they were met.
#[derive(Default)]
struct Rows {
    metrics: Vec<String>,
    heads: BTreeMap<HeadId, BTreeMap<String, Value>>,
}

impl Rows {
    fn add<'a>(
        &mut self,
        head: HeadId,
        metrics: impl Iterator<Item = (&'a str, Value)>,
    ) -> Result<(), ImportError> {
        let mut row = BTreeMap::new();
        for (name, value) in metrics {
            if !self.metrics.iter().any(|known| known == name) {
                self.metrics.push(name.to_owned());
            }
            row.insert(name.to_owned(), value);
        }
        match self.heads.insert(head, row) {
            Some(_) => Err(ImportError::HeadTwice { head }),
            None => Ok(()),
        }
    }
}

fn is_metric(name: &str) -> bool {
    !["layer", "head"].contains(&name) && !NO_METRICS.contains(&name)
}

/// A JSON value as a finite f32.
fn finite(metric: &str, place: &str, value: &Value) -> Result<f32, ImportError> {
    let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    number.ok_or_else(|| {
        let found: String = value.to_string().chars().take(40).collect();
        ImportError::NotFinite { metric: metric.to_owned(), place: place.to_owned(), found }
    })
}

/// Records of a CSV text (RFC 4180): fields by commas, quotes around fields, quotes in them doubled. Empty lines are none.
fn csv_records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut is_quoted, mut characters) = (false, text.chars().peekable());
    while let Some(c) = characters.next() {
        match c {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {}
            '\n' if !is_quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    record.push(field);
    records.push(record);
    records.retain(|record| record.iter().any(|field| !field.trim().is_empty()));
    records
}

#[cfg(test)]
mod tests;
