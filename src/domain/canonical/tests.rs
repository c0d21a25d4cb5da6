//! The specification of canonical JSON. This module holds the published vectors and the properties.

use proptest::prelude::*;

use super::writer::plain_run;
use super::*;

fn ok(text: &str) -> String {
    canonical(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_example_of_rfc_8785_comes_out_as_published() {
    let text = r#"{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"#;
    assert_eq!(
        ok(text),
        r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
}

#[test]
fn names_sort_by_utf_16_code_units() {
    let text = r#"{
      "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    assert_eq!(
        ok(text),
        "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
         \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
    );
    let french = r#"{"sin":4,"péché":2,"peach":1,"pêche":3}"#;
    assert_eq!(ok(french), r#"{"peach":1,"péché":2,"pêche":3,"sin":4}"#);
}

#[test]
fn nested_objects_are_sorted_each_for_itself() {
    let text = r#"{"1": {"f": {"f": "hi","F": 5} ,"\n": 56.0}, "10": { }, "": "empty", "a": { }, "111": [ {"e": "yes","E": "no" } ], "A": { }}"#;
    assert_eq!(
        ok(text),
        r#"{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}"#
    );
    // Escaped names sort by what they stand for: tab, newline, quote, '#', backslash, ']'.
    assert_eq!(
        ok(r##"{"]":0,"\\":0,"#":0,"\"":0,"\n":0,"\t":0}"##),
        r##"{"\t":0,"\n":0,"\"":0,"#":0,"\\":0,"]":0}"##
    );
}

#[test]
fn doubles_are_written_as_ecmascript_does() {
    // Appendix B of RFC 8785: the bits of a double and its text.
    for (bits, text) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbece_cc93_4e0f_8c34, "-0.0000036669042195147"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        let double = f64::from_bits(bits);
        assert_eq!(ok(text), text, "{bits:x} as published");
        let exponent = format!("{double:e}");
        if bits != 0xbece_cc93_4e0f_8c34 {
            assert_eq!(ok(&exponent), text, "{exponent}");
        }
    }
}

#[test]
fn a_number_that_a_double_cannot_hold_keeps_its_digits() {
    for (written, text) in [
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993.000", "9007199254740993"),
        ("-90071992547409.93e2", "-9007199254740993"),
        ("12345678901234567890", "12345678901234567890"),
        ("1234567890123456789012", "1.234567890123456789012e+21"),
        ("123456789012345678901", "123456789012345678901"),
        ("1e400", "1e+400"),
        ("-10E399", "-1e+400"),
        ("0.1e-399", "1e-400"),
        ("1e-400", "1e-400"),
        ("0.12345678901234567890", "0.1234567890123456789"),
        ("1.00000000000000000001", "1.00000000000000000001"),
        ("9007199254740992.5", "9007199254740992.5"),
        ("0.0000001234567890123456789", "1.234567890123456789e-7"),
        // What a double holds, however it is written.
        ("1.0", "1"),
        ("1e2", "100"),
        ("0.10", "0.1"),
        ("100e-2", "1"),
        ("-0", "0"),
        ("-0.0e7", "0"),
        ("0e99999999999999999999999", "0"),
        ("1E+020", "100000000000000000000"),
        ("0.1000000000000000000000", "0.1"),
        ("0.0000001", "1e-7"),
        ("0.000001", "0.000001"),
        ("123456789012345", "123456789012345"),
        ("9007199254740994", "9007199254740994"),
    ] {
        assert_eq!(ok(written), text, "{written}");
        assert_eq!(ok(text), text, "{written} twice");
    }
    assert_eq!(canonical("1e999999999999999999999"), Err(CanonicalError::Exponent));
}

#[test]
fn what_readers_could_understand_differently_is_refused() {
    use CanonicalError::*;
    let duplicate = |name: &str| DuplicateMember(name.to_string());
    for (text, error) in [
        (r#"{"a":1,"a":1}"#, duplicate("a")),
        (r#"{"a":1,"b":2,"\u0061":3}"#, duplicate("a")),
        (r#"[{"b":1,"a":{"x":0,"x":0}}]"#, duplicate("x")),
        (r#"{"\t":1,"\u0009":1}"#, duplicate("\t")),
        (r#""a\u0000b""#, Nul),
        ("\"a\0b\"", Nul),
        (r#"{"\u0000":1}"#, Nul),
        (r#""\ud800""#, LoneSurrogate),
        (r#""\udc00""#, LoneSurrogate),
        (r#""\ud800\ud800""#, LoneSurrogate),
        (r#""\ud800x""#, LoneSurrogate),
        (r#""\ud800\n""#, LoneSurrogate),
    ] {
        assert_eq!(canonical(text), Err(error), "{text}");
    }
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "{1:1}",
        "'a'",
        "\"a",
        "\"a\\",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12",
        "\"\n\"",
        "01",
        "-",
        "-a",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "nul",
        "truex",
        "tru",
        "1 1",
        "{} {}",
        "\u{feff}1",
        "//",
        "[1]x",
    ] {
        let Err(CanonicalError::NotJson { at, problem }) = canonical(text) else {
            panic!("{text:?} was taken")
        };
        assert!(at <= text.len() && !problem.is_empty(), "{text:?}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text:?}");
    }
}

#[test]
fn nesting_has_a_bound() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(ok(&nested(DEPTH_MAX)), nested(DEPTH_MAX));
    assert_eq!(canonical(&nested(DEPTH_MAX + 1)), Err(CanonicalError::TooDeep));
    assert_eq!(canonical(&"{\"a\":".repeat(1_000_000)), Err(CanonicalError::TooDeep));
}

#[test]
fn the_hash_is_that_of_the_canonical_object() {
    let (source, event_type) = (Source::parse("s\"1").unwrap(), EventType::parse("T").unwrap());
    let stream = StreamKey::parse("k").unwrap();
    let whole = r#"{"payload":{"a":1,"b":[2]},"schemaVersion":3,"source":"s\"1","streamKey":"k","type":"T"}"#;
    let expected = digest::digest(&digest::SHA256, whole.as_bytes());
    let hash = hash(&source, &event_type, &stream, 3, " {\"b\":[2.0],\n\"a\":1}").unwrap();
    assert_eq!(hash.0, expected.as_ref());
    assert_eq!(ok(whole), whole);
}

#[test]
fn an_object_is_taken_apart_in_the_order_of_its_text() {
    let object =
        Object::parse(" {\"b\" : { \"y\":1, \"x\" : \" \\\" \" }, \"\\u0061\": 1.0, \"drop\":0} ")
            .unwrap();
    assert_eq!(object.raw("a"), Some("1.0"));
    assert_eq!(object.canonical("a"), Some(&b"1"[..]));
    assert_eq!(object.raw("b"), Some("{ \"y\":1, \"x\" : \" \\\" \" }"));
    assert_eq!(object.canonical("b"), Some(&br#"{"x":" \" ","y":1}"#[..]));
    assert_eq!(object.raw("c"), None);
    assert_eq!(object.compact_without(&["drop"]), r#"{"b":{"y":1,"x":" \" "},"a":1.0}"#);
    assert_eq!(Object::parse("{}").unwrap().compact_without(&[]), "{}");

    assert_eq!(Object::parse("[1]").unwrap_err(), ObjectError { member: None, problem: None });
    let nul = Object::parse(r#"{"a":{"b":"\u0000"}}"#).unwrap_err();
    assert_eq!(nul, ObjectError { member: Some("a".into()), problem: Some(CanonicalError::Nul) });
    let many: Vec<String> = (0..100).map(|i| format!("\"m{i}\":{i}")).collect();
    Object::parse(&format!("{{{}}}", many.join(","))).unwrap();
    let again = format!("{{{},\"m7\":1}}", many.join(","));
    let twice = Some(CanonicalError::DuplicateMember("m7".into()));
    assert_eq!(Object::parse(&again).unwrap_err(), ObjectError { member: None, problem: twice });
}

/// A tree, and how each part of it is to be written.
#[derive(Debug, Clone)]
enum Tree {
    Word(&'static str),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let text = || prop_oneof!["[a-c]{0,2}", "[ -~éπ€\u{e000}-\u{ffff}😀\n\t\u{1}]{0,6}"];
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false"]).prop_map(Tree::Word),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Tree::Number),
        (-1000_i32..1000).prop_map(|x| Tree::Number(f64::from(x) / 8.0)),
        text().prop_map(Tree::Text),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::List),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|map| Tree::Map(map.into_iter().collect())),
        ]
    })
}

/// Writes `tree` in one of its many ways, as `dice` fall.
fn spell(tree: &Tree, dice: &mut impl Iterator<Item = u8>, out: &mut String) {
    let blank = [" ", "", "\n\t", "", "\r\n "];
    let mut pick = || dice.next().unwrap_or(1);
    out.push_str(blank[usize::from(pick()) % blank.len()]);
    match tree {
        Tree::Word(word) => out.push_str(word),
        Tree::Number(x) if pick() % 2 == 0 => out.push_str(&format!("{x:e}")),
        Tree::Number(x) => out.push_str(&format!("{x:?}")),
        Tree::Text(text) => quote(text, pick() % 2 == 0, out),
        Tree::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                spell(item, dice, out);
            }
            out.push(']');
        }
        Tree::Map(members) => {
            let mut order: Vec<_> = members.iter().collect();
            if !order.is_empty() {
                let len = order.len();
                order.rotate_left(usize::from(pick()) % len);
                order.swap(0, usize::from(pick()) % len);
            }
            out.push('{');
            for (i, (name, item)) in order.into_iter().enumerate() {
                out.push_str(if i > 0 { " ," } else { "" });
                quote(name, dice.next().unwrap_or(1).is_multiple_of(2), out);
                out.push(':');
                spell(item, dice, out);
            }
            out.push('}');
        }
    }
    out.push_str(blank[usize::from(dice.next().unwrap_or(1)) % blank.len()]);
}

fn quote(text: &str, escape: bool, out: &mut String) {
    if escape {
        out.push('"');
        text.encode_utf16().for_each(|unit| out.push_str(&format!("\\u{unit:04X}")));
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).unwrap());
    }
}

proptest! {
    #[test]
    fn one_text_for_every_way_to_write_the_same(
        tree in tree(),
        dice in prop::collection::vec(any::<u8>(), 0..200),
        others in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut one, mut two) = (String::new(), String::new());
        spell(&tree, &mut dice.into_iter(), &mut one);
        spell(&tree, &mut others.into_iter(), &mut two);
        let text = ok(&one);
        prop_assert_eq!(&text, &ok(&two));
        prop_assert_eq!(&text, &ok(&text));
        let hash = |payload: &str| {
            let (source, event_type) = (Source::parse("s").unwrap(), EventType::parse("t").unwrap());
            hash(&source, &event_type, &StreamKey::parse("k").unwrap(), 1, payload).unwrap()
        };
        prop_assert_eq!(hash(&one), hash(&two));
        // An independent reader finds the same value in it.
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        prop_assert_eq!(shape(&read(&text)), shape(&read(&one)));
    }

    #[test]
    fn decimals_with_the_same_digits_have_the_same_text(
        digits in "[1-9][0-9]{0,30}", zeros in 0_usize..8, shift in -40_i32..40,
    ) {
        let plain = ok(&format!("{digits}e{shift}"));
        let padded = format!("{digits}{}e{}", "0".repeat(zeros), shift - i32::try_from(zeros).unwrap());
        prop_assert_eq!(&plain, &ok(&padded));
        let pointed = format!("{}.{}0E{}", &digits[..1], &digits[1..], shift + i32::try_from(digits.len()).unwrap() - 1);
        prop_assert_eq!(&plain, &ok(&pointed));
        prop_assert_eq!(&plain, &ok(&plain));
    }

    #[test]
    fn different_integers_never_share_a_text(a in any::<i128>(), step in 1_i128..1000) {
        prop_assert_ne!(ok(&a.to_string()), ok(&a.wrapping_add(step).to_string()));
        prop_assert_ne!(ok(&(a >> 64).to_string()), ok(&((a >> 64) + step).to_string()));
    }

    #[test]
    fn any_double_is_written_as_the_library_writes_it(bits in any::<u64>()) {
        let double = f64::from_bits(bits);
        prop_assume!(double.is_finite());
        let mut buffer = ryu_js::Buffer::new();
        let expected = buffer.format_finite(double).to_string();
        prop_assert_eq!(ok(&format!("{double:e}")), expected.clone());
        prop_assert_eq!(ok(&expected), expected);
    }

    #[test]
    fn a_run_of_plain_bytes_is_found_as_by_looking_at_each(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let slow = bytes.iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count();
        prop_assert_eq!(plain_run(&bytes), slow);
    }

    #[test]
    fn no_text_makes_it_panic_and_what_it_takes_is_json(text in "[\\[\\]{}\",:0-9eE+.tfn\\\\u dD8-]{0,24}|.{0,24}") {
        if let Ok(canonical) = canonical(&text) {
            prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
            prop_assert_eq!(ok(&canonical), canonical);
        }
        let _ = Object::parse(&text).map(|object| object.compact_without(&[]));
    }
}

/// Names and texts of a value, without its numbers: the independent reader rounds them as it likes.
fn shape(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Number(_) => "number".to_string(),
        serde_json::Value::Array(items) => {
            format!("{:?}", items.iter().map(shape).collect::<Vec<_>>())
        }
        serde_json::Value::Object(members) => {
            let members: std::collections::BTreeMap<_, _> =
                members.iter().map(|(name, value)| (name, shape(value))).collect();
            format!("{members:?}")
        }
        other => other.to_string(),
    }
}
