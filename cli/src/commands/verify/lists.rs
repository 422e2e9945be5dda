//! The full list: one line a blob, as JSON or CSV.

use std::io::{self, Read};
use std::path::Path;

use dray_engine::api;
use dray_engine::api::hash::Sha256;
use dray_engine::api::host::{OutputFile, OutputForm, Outputs};
use dray_engine::api::verify::{Row, Verdict};
use dray_engine::report::{DriveFacts, Kind, Problem};
use serde_json::{Value, json};

const COLUMNS: [&str; 15] = [
    "drive",
    "verdict",
    "blob",
    "snapshot",
    "file",
    "length",
    "pieces",
    "metadata",
    "properties",
    "service",
    "taken",
    "read",
    "extracted",
    "extracted_changed",
    "notes",
];

/// A list as a file: it may replace an earlier one.
const FORM: OutputForm = OutputForm {
    name: "the list",
    is_earlier: |head| {
        let has = |part: &[u8]| head.windows(part.len()).any(|these| these == part);
        head.starts_with(b"drive,verdict,") || head.starts_with(b"{\"") && has(b"\"blob\":") && has(b"\"drive\":")
    },
    private: false,
};

/// A list that is being written.
#[derive(Debug)]
pub struct List {
    out: OutputFile,
    is_csv: bool,
    columns: &'static [&'static str],
}

impl List {
    /// A new list; `.csv` makes it CSV, anything else JSON lines.
    pub fn create(path: &Path, outputs: &mut Outputs) -> Result<Self, Problem> {
        Self::of(path, outputs, &COLUMNS, FORM)
    }

    /// The same of other rows.
    pub fn of(
        path: &Path,
        outputs: &mut Outputs,
        columns: &'static [&'static str],
        form: OutputForm,
    ) -> Result<Self, Problem> {
        let is_csv = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        let mut out = outputs.begin(path, form)?;
        if is_csv {
            out.add(format!("{}\n", columns.join(",")).as_bytes())?;
        }
        Ok(Self { out, is_csv, columns })
    }

    /// Adds a row: an object with the columns' names.
    pub fn row(&mut self, value: &Value) -> Result<(), Problem> {
        if self.is_csv {
            let cells: Vec<String> = self.columns.iter().map(|name| cell(&value[*name])).collect();
            self.out.add(format!("{}\n", cells.join(",")).as_bytes())
        } else {
            self.out.add(format!("{value}\n").as_bytes())
        }
    }

    /// Everything is written.
    pub fn finish(self) -> Result<(), Problem> {
        self.out.finish()
    }
}

/// A row of a drive.
pub fn row(drive: &DriveFacts, row: &Row) -> Value {
    json!({
        "drive": drive.name,
        "verdict": row.verdict.word(),
        "blob": row.blob,
        "snapshot": row.snapshot,
        "file": row.file,
        "length": row.length,
        "pieces": row.pieces,
        "metadata": row.metadata.map(|verdict| verdict.word()),
        "properties": row.properties.map(|verdict| verdict.word()),
        "service": row.service,
        "taken": row.taken.map(|taken| taken.word()),
        "read": if row.verdict == Verdict::Missing || row.blob.is_none() { "no" } else if row.earlier { "earlier" } else { "now" },
        "extracted": row.extracted,
        "extracted_changed": row.changed,
        "notes": row.notes,
    })
}

/// RFC 4180; a name that a spreadsheet would take for a formula is kept from being one.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        other => return other.to_string(),
    };
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if guard.is_empty() && !text.contains([',', '"', '\n', '\r']) {
        return text;
    }
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

/// SHA-256 of a file, upper-case hex.
pub fn sha256(path: &Path) -> Result<String, Problem> {
    let failed = |error: io::Error| Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path);
    let mut file = api::host::open_input(path, api::host::Pipes::Refused).map_err(failed)?;
    let mut hash = Sha256::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hash.value().iter().map(|byte| format!("{byte:02X}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_survive_a_spreadsheet() {
        assert_eq!(cell(&json!("a,\"b\"")), "\"a,\"\"b\"\"\"");
        assert_eq!(cell(&json!("=1+1")), "\"'=1+1\"");
        assert_eq!(cell(&json!(["x", "y"])), "x; y");
        assert_eq!(cell(&Value::Null), "");
        assert_eq!(cell(&json!(12)), "12");
    }
}
