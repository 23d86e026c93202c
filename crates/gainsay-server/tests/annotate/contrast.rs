//! Every text and every control of the style sheet meets WCAG 2 AA in both themes.

use std::collections::HashMap;

const STYLE: &str = include_str!("../../src/annotate/assets/app.css");

/// The variables of the light and of the dark theme.
fn themes() -> [HashMap<String, [f64; 3]>; 2] {
    let block = |start: usize| STYLE[start..].split(['{', '}']).nth(1).unwrap();
    let dark = STYLE.find("prefers-color-scheme: dark").unwrap();
    let dark = dark + STYLE[dark..].find(":root").unwrap();
    [STYLE.find(":root").unwrap(), dark].map(|start| {
        let pairs = block(start).split(';').filter_map(|line| line.trim().split_once(": #"));
        pairs.map(|(name, hex)| (name.trim().trim_start_matches("--").to_owned(), color(hex))).collect()
    })
}

fn color(hex: &str) -> [f64; 3] {
    let part = |i: usize| f64::from(u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()) / 255.0;
    [part(0), part(1), part(2)]
}

/// Relative luminance (WCAG 2.2).
fn luminance(color: [f64; 3]) -> f64 {
    let [r, g, b] = color.map(|c| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// (lighter + 0.05) / (darker + 0.05).
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn contrast_by_hand() {
    assert!((contrast(color("000000"), color("ffffff")) - 21.0).abs() < 1e-9);
    // Luminance of #777777 is 0.184475: 1.05 / 0.234475.
    assert!((contrast(color("777777"), color("ffffff")) - 4.478).abs() < 1e-3);
}

#[test]
fn text_is_at_least_four_and_a_half_to_one_and_controls_three_to_one() {
    // What stands on what; 4.5 for text, 3 for borders of controls, focus rings and lines of the curve.
    let text = [
        ("ink", "ground"),
        ("ink", "card"),
        ("ink", "tint"),
        ("soft", "ground"),
        ("soft", "card"),
        ("soft", "tint"),
        ("accent", "ground"),
        ("accent", "card"),
        ("accent", "tint"),
        ("on-accent", "accent"),
        ("on-accent", "accent-hover"),
        ("warn", "card"),
        ("warn", "ground"),
    ];
    let controls = [("edge", "card"), ("edge", "ground"), ("edge", "tint"), ("accent", "card"), ("accent", "ground")];
    for (theme, variables) in ["light", "dark"].iter().zip(themes()) {
        for (pairs, least) in [(&text[..], 4.5), (&controls[..], 3.0)] {
            for (front, back) in pairs {
                let found = contrast(variables[*front], variables[*back]);
                assert!(found >= least, "{theme}: {front} on {back} is {found:.2} to 1");
            }
        }
    }
}

#[test]
fn colors_come_from_variables_alone_and_nothing_fades() {
    let rules = &STYLE[STYLE.find("* { box-sizing").unwrap()..];
    assert!(!rules.contains('#') || !rules.contains(": #"), "a color outside of the variables");
    for word in ["rgb(", "hsl(", "opacity"] {
        assert!(!rules.contains(word), "{word} escapes the check of contrast");
    }
    let [light, dark] = themes();
    let mut names: Vec<&String> = light.keys().collect();
    names.sort();
    let mut others: Vec<&String> = dark.keys().collect();
    others.sort();
    assert_eq!(names, others, "both themes have every color");
    for used in rules.split("var(--").skip(1) {
        let name = used.split(')').next().unwrap();
        assert!(light.contains_key(name), "--{name} is not defined");
    }
}
