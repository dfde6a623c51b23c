//! A table of numbers and texts, as CSV (RFC 4180) and as JSON rows.
//!
//! Cells are written as they are. A token such as `=1+1` stays `=1+1`: the prefix that some programs put before such cells,
//! lest a spreadsheet takes them for formulas, would change the data, and a reader in Python or R would get another token. Who
//! opens a file in a spreadsheet should import its columns as text.

use serde_json::{Map, Value};

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// A count or an index.
    Count(usize),
    /// A measurement; the shortest digits that read back to the same f32.
    Number(f32),
    /// Words.
    Text(String),
}

impl From<usize> for Cell {
    fn from(value: usize) -> Self {
        Self::Count(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Count(value as usize)
    }
}

impl From<f32> for Cell {
    fn from(value: f32) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Empty }
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Cell {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Into::into)
    }
}

/// Named columns, and rows as long as there are columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names.
    pub columns: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    /// The table as CSV, lines ended by CR LF.
    pub fn csv(&self) -> String {
        let mut csv = String::new();
        let line = |csv: &mut String, fields: &mut dyn Iterator<Item = String>| {
            for (index, field) in fields.enumerate() {
                if index > 0 {
                    csv.push(',');
                }
                csv.push_str(&field);
            }
            csv.push_str("\r\n");
        };
        line(&mut csv, &mut self.columns.iter().map(|name| quoted(name)));
        for row in &self.rows {
            line(&mut csv, &mut row.iter().map(Cell::csv));
        }
        csv
    }

    /// The rows as objects by column.
    pub fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let fields = self.columns.iter().cloned().zip(row.iter().map(Cell::json));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        self.rows.iter().map(row).collect()
    }
}

impl Cell {
    fn csv(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Count(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) => quoted(text),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Count(value) => Value::from(*value),
            Self::Number(value) => Value::from(*value),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

/// A field as CSV carries it: in quotes where it holds a comma, a quote, a line end or a space at its rim.
fn quoted(text: &str) -> String {
    let is_plain = !text.contains([',', '"', '\r', '\n']) && text.trim() == text && !text.is_empty();
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}
