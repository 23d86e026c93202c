//! The guide to recipes tells the truth.

use super::*;

const GUIDE: &str = include_str!("../../../../docs/recipe.md");

#[test]
fn the_guide_names_every_key_with_its_default_and_its_examples_are_recipes() {
    let mut blocks = GUIDE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole = blocks.next().expect("the reference");
    assert_eq!(toml::from_str::<Recipe>(whole).expect("a recipe"), Recipe::default());
    // Keys without a default stand there behind a `#`.
    let uncommented: String = whole.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let given: toml::Table = uncommented.parse().expect("TOML");
    let known = toml::Table::try_from(Recipe {
        prompts: Prompts { heldout: Some(String::new()), ..Prompts::default() },
        proxy: Proxy { model: Some(String::new()), preferences: Some(String::new()), ..Proxy::default() },
        feedback: Feedback { noise: Some(String::new()), ..Feedback::default() },
        tune: PolicyTraining {
            max_new_tokens: Some(1),
            stop_kl: Some(1.0),
            beta: Some(1.0),
            target_kl: Some(1.0),
            ..PolicyTraining::default()
        },
        ..Recipe::default()
    })
    .expect("a table");
    let keys = |table: &toml::Table| -> Vec<String> {
        let inner = |(name, value): (&String, &toml::Value)| match value {
            toml::Value::Table(table) => table.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name.clone()],
        };
        let mut keys: Vec<String> = table.iter().flat_map(inner).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&given), keys(&known));
    for example in blocks {
        toml::from_str::<Recipe>(example).expect("a recipe").check().expect("which makes sense");
    }
}
