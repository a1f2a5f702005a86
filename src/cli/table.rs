//! Tables for people. No colours, no lines: they paste into a mail and come through a pipe unchanged.

use std::borrow::Cow;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// A table with a header in capitals and columns as wide as what is in them.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.map(str::to_uppercase));
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The text without control characters: names come from strangers, and a terminal obeys what it is sent.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [["acme".to_owned(), "Acme Ltd".to_owned()], ["a-longer-one".to_owned(), "東京".to_owned()]];
        assert_eq!(table(["slug", "name"], rows), "SLUG          NAME\nacme          Acme Ltd\na-longer-one  東京");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let shown = table(["name"], [["\x1b[31mred\r\nrow".to_owned()]]);
        assert!(!shown.contains('\x1b') && shown.lines().count() == 2, "{shown:?}");
    }
}
