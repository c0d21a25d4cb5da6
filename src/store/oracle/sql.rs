//! The statements of `sql/oracle/statements`. This module turns a file into the text that is sent: without its
//! comments, with the parts that a call wants, and with a list as long as the call needs.
//!
//! Each file is one whole statement as it stands, so that a parser of Oracle's grammar can check it. A line that ends
//! in `-- when NAME` is sent only where the call wants `NAME`.

/// Gives the text of a statement's file by its name.
macro_rules! statement {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/oracle/statements/", $name, ".sql"))
    };
}
pub(super) use statement;

/// The statement without comments, with the lines for `wanted` only.
pub(super) fn text(file: &str, wanted: &[&str]) -> String {
    let mut text = String::with_capacity(file.len());
    for line in file.lines() {
        let (code, comment) = line.split_once("--").unwrap_or((line, ""));
        if let Some(name) = comment.trim().strip_prefix("when ")
            && !wanted.contains(&name.trim())
        {
            continue;
        }
        let code = code.trim_end();
        if !code.is_empty() {
            text.push_str(code);
            text.push('\n');
        }
    }
    let block = text.trim_start().to_ascii_uppercase().starts_with("BEGIN");
    let trimmed = text.trim_end();
    // A block ends in a semicolon; a statement must not.
    if block { trimmed.to_string() } else { trimmed.trim_end_matches(';').to_string() }
}

/// The statement with the one element `element` of a list repeated `count` times, its parameters numbered.
pub(super) fn repeated(text: &str, element: &str, count: usize) -> String {
    let mut list = String::with_capacity((element.len() + 4) * count);
    for place in 1..=count.max(1) {
        if place > 1 {
            list.push_str(", ");
        }
        let mut letters = element.chars().peekable();
        while let Some(letter) = letters.next() {
            list.push(letter);
            if letter == ':' {
                while let Some(next) =
                    letters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_')
                {
                    list.push(next);
                }
                list.push('_');
                list.push_str(&place.to_string());
            }
        }
    }
    text.replacen(element, &list, 1)
}

/// How long a list of `count` elements is made, so that there are few texts of one statement: the shortest of a few
/// lengths that holds it. The rest is filled with repeats of the last element.
pub(super) fn list_length(count: usize) -> usize {
    LIST_LENGTHS.into_iter().find(|length| *length >= count).unwrap_or(LIST_MAX)
}

/// The longest list of one statement: with two parameters each it stays far below the database's limits.
pub(super) const LIST_MAX: usize = 200;
const LIST_LENGTHS: [usize; 4] = [1, 8, 40, LIST_MAX];

/// The elements of a list, the last one again and again until it is long enough.
pub(super) fn fill<T>(portion: &[T], length: usize) -> impl Iterator<Item = &T> {
    portion.iter().chain(portion.iter().last().into_iter().cycle()).take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "-- Reads.\n-- Parameters: :a, :b\nSELECT x\n  FROM t\n WHERE a = :a\n   \
                        AND b = :b  -- when b\n ORDER BY x;\n";

    #[test]
    fn comments_go_and_a_part_is_there_when_it_is_wanted() {
        assert_eq!(text(FILE, &[]), "SELECT x\n  FROM t\n WHERE a = :a\n ORDER BY x");
        assert!(text(FILE, &["b"]).contains("AND b = :b\n"));
        assert_eq!(text("BEGIN p(:a); END;\n", &[]), "BEGIN p(:a); END;");
    }

    #[test]
    fn a_list_is_as_long_as_asked_and_its_parameters_differ() {
        let once = "WHERE (t, k) IN ((:t, :k)) ORDER BY t";
        assert_eq!(
            repeated(once, "(:t, :k)", 2),
            "WHERE (t, k) IN ((:t_1, :k_1), (:t_2, :k_2)) ORDER BY t"
        );
        for (count, length) in [(0, 1), (1, 1), (2, 8), (9, 40), (41, 200), (200, 200)] {
            assert_eq!(list_length(count), length);
        }
    }

    #[test]
    fn a_list_is_filled_with_its_last_element() {
        let filled: Vec<&i32> = fill(&[1, 2], 5).collect();
        assert_eq!(filled, [&1, &2, &2, &2, &2]);
    }
}
