//! What is saved is what is loaded again, bit for bit.

#[path = "training_common/families.rs"]
mod families;
mod training_common;

use std::path::Path;

use families::{NAMES, backbone, folder, model, provenance, random_adapter, random_head, sequences};
use gainsay_lm::config::Family;
use gainsay_lm::merge::merged;
use gainsay_lm::model::{Packed, Trainable};
use gainsay_lm::reward::RewardModel;
use gainsay_lm::save::{AdapterParts, base_reference, save_adapter, save_full, save_policy, save_reward_model};
use gainsay_lm::sequence::Sequence;
use gainsay_lm::train::{RewardCompany, RewardMethod, RewardTrainOptions, train_reward};
use gainsay_lm::weights::{hf, peft};
use gainsay_lm::{Loaded, load, tiny};
use serde_json::Value;
use training_common::{quiet, vowel_pairs};

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn adapters_of_every_family_come_back() {
    let root = tempfile::tempdir().unwrap();
    for name in NAMES {
        let backbone = backbone(name);
        let (adapter, head) = (random_adapter(&backbone), random_head(&backbone));
        let base = folder(name).to_string_lossy().into_owned();
        for head in [Some(head.as_slice()), None] {
            let dir = root.path().join(format!("{name}-{}", head.is_some()));
            let parts = AdapterParts { adapter: &adapter, head, family: backbone.config.family, base: &base };
            save_adapter(&dir, &parts, &provenance()).unwrap();
            let config = peft::PeftConfig::read(&dir).unwrap();
            let read = peft::read(&dir, &config, &backbone).unwrap();
            assert_eq!((&read.adapter, read.head.as_deref()), (&adapter, head), "{name}");
            // The same bytes again, replacing the folder.
            let first = files(&dir);
            save_adapter(&dir, &parts, &provenance()).unwrap();
            assert_eq!(files(&dir), first);
            assert_eq!(first.len(), 3);
        }
    }
}

#[test]
fn whole_models_of_every_family_come_back() {
    let root = tempfile::tempdir().unwrap();
    let tokenizer = load("tiny-random").unwrap().tokenizer;
    for name in NAMES {
        let backbone = backbone(name);
        let head = random_head(&backbone);
        for head in [Some(head.as_slice()), None] {
            let dir = root.path().join(format!("{name}-{}", head.is_some()));
            save_full(&dir, &backbone, head, &tokenizer, &provenance()).unwrap();
            let read = hf::read(&dir).unwrap();
            assert_eq!(read.head.as_deref(), head, "{name}");
            assert_eq!(read.config.model, backbone.config, "{name}");
            let kept = |b: &gainsay_lm::model::Backbone| {
                let all = b.params().into_iter().map(|(id, t)| (id, t.clone()));
                all.filter(|(id, _)| head.is_none() || *id != gainsay_lm::model::ParamId::LmHead).collect::<Vec<_>>()
            };
            assert!(kept(&read.backbone) == kept(&backbone), "{name}");
        }
    }
}

#[test]
fn merging_keeps_what_the_model_computes() {
    for name in NAMES {
        let plain = backbone(name);
        let adapter = random_adapter(&plain);
        let ids = sequences(&plain);
        let batch = Packed::new(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let with_adapter = model(plain.clone(), Some(adapter.clone())).hidden(&batch);
        let folded = model(merged(plain.clone().into(), &adapter), None).hidden(&batch);
        let base = model(plain, None).hidden(&batch);
        let distance = |a: &gainsay_lm::model::Mat, b: &gainsay_lm::model::Mat| {
            a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs()).fold(0.0f32, f32::max)
        };
        assert!(distance(&with_adapter, &folded) < 1e-4, "{name}");
        assert!(distance(&with_adapter, &base) > 1e-2, "{name}");
    }
}

#[test]
fn a_trained_reward_model_scores_the_same_after_loading() {
    let root = tempfile::tempdir().unwrap();
    let base_dir = root.path().join("base");
    tiny::write(&base_dir, 1).unwrap();
    let spec = base_dir.to_string_lossy().into_owned();
    for (method, what) in [
        (RewardMethod::Head, Trainable::Head),
        (RewardMethod::Lora, Trainable::Lora),
        (RewardMethod::Full, Trainable::Full),
    ] {
        let base = Loaded { head: None, ..load(&spec).unwrap() };
        let options = RewardTrainOptions::new(method, Family::Llama);
        let (trained, _) =
            train_reward(base, &vowel_pairs(24, 5), &options, &mut RewardCompany::default(), &mut quiet()).unwrap();
        let dir = root.path().join(format!("{method:?}"));
        save_reward_model(&dir, &trained, &what, &provenance()).unwrap();
        let loaded = RewardModel::from_loaded(&load(&dir.to_string_lossy()).unwrap()).unwrap();
        let sequence =
            |n: u32| Sequence { tokens: (0..n * 3).map(|i| 65 + i).collect(), prompt_len: 2, truncated: false };
        let sequences: Vec<Sequence> = (1..5).map(sequence).collect();
        assert_eq!(trained.rewards_of(&sequences).unwrap(), loaded.rewards_of(&sequences).unwrap(), "{method:?}");
        assert_eq!(trained.head, loaded.head);
    }
    // An adapter trained on from an adapter names the same base.
    let lora = root.path().join("Lora").to_string_lossy().into_owned();
    let base_path = base_dir.canonicalize().unwrap().to_string_lossy().into_owned();
    assert_eq!(base_reference(&lora).unwrap(), (base_path.clone(), None));
    let options = RewardTrainOptions::new(RewardMethod::Lora, Family::Llama);
    let (again, _) =
        train_reward(load(&lora).unwrap(), &vowel_pairs(24, 6), &options, &mut RewardCompany::default(), &mut quiet())
            .unwrap();
    let dir = root.path().join("again");
    save_reward_model(&dir, &again, &Trainable::Lora, &provenance()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["base_model_name_or_path"], Value::from(base_path));
    assert!(load(&dir.to_string_lossy()).is_ok());
}

#[test]
fn bases_are_named_so_that_others_find_them() {
    let named = |spec: &str| base_reference(spec).unwrap();
    assert_eq!(named("smollm2-135m"), ("smollm2-135m".into(), None));
    assert_eq!(named("tiny-random:3"), ("tiny-random:3".into(), None));
    assert_eq!(named("hf:org/name"), ("org/name".into(), None));
    assert_eq!(named("hf:org/name@v2"), ("org/name".into(), Some("v2".into())));
    assert!(Path::new(&named(env!("CARGO_MANIFEST_DIR")).0).is_absolute());
}

#[test]
fn a_policy_without_an_adapter_has_nothing_to_save() {
    let root = tempfile::tempdir().unwrap();
    let plain = model(backbone("llama"), None);
    let error = save_policy(&root.path().join("p"), &plain, "base", &provenance()).unwrap_err();
    assert!(error.is_user_error() && !root.path().join("p").exists());
}
