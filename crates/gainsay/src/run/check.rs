//! Whether a recipe makes sense, before anything is computed.

use gainsay_core::oracle::Noise;

use super::recipe::{Feedback, Recipe};

impl Recipe {
    /// What is wrong with the values, if anything.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let positive = [
            ("rounds", self.rounds as usize),
            ("sample.n", self.sample.n),
            ("sample.max_new_tokens", self.sample.max_new_tokens),
            ("select.budget", self.select.budget),
            ("reward.epochs", self.reward.epochs),
            ("reward.batch", self.reward.batch),
            ("tune.prompts", self.tune.prompts),
            ("evaluate.n", self.evaluate.n),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0; it must be at least 1"));
        }
        if self.schema != 1 {
            return Err(format!("schema is {}; this build reads 1", self.schema));
        }
        if self.sample.n < 2 {
            return Err("sample.n is 1; conflict needs at least 2 completions a prompt".into());
        }
        if gainsay_remote::is_address(&self.gold) {
            address("gold", &self.gold)?;
        }
        self.check_ranges()?;
        self.check_strategies()?;
        self.check_feedback()?;
        self.check_training()
    }

    fn check_ranges(&self) -> std::result::Result<(), String> {
        let (reward, tune) = (&self.reward, &self.tune);
        let at_least_0 = [
            ("sample.temperature", self.sample.temperature),
            ("select.delta", self.select.delta),
            ("reward.center", reward.center),
            ("reward.old_weight", reward.old_weight),
            ("tune.beta", tune.beta.unwrap_or(0.0)),
            ("tune.uncertainty", tune.uncertainty),
        ];
        let above_0 = [
            ("reward.lr", reward.lr),
            ("reward.alpha", reward.alpha),
            ("tune.lr", tune.lr),
            ("tune.alpha", tune.alpha),
            ("tune.temperature", tune.temperature),
            ("tune.stop_kl", tune.stop_kl.unwrap_or(1.0)),
            ("tune.target_kl", tune.target_kl.unwrap_or(1.0)),
        ];
        if let Some((name, value)) = at_least_0.iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
            return Err(format!("{name} is {value}; it is a number of at least 0"));
        }
        if let Some((name, value)) = above_0.iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
            return Err(format!("{name} is {value}; it is a number above 0"));
        }
        let shares = [("proxy.flip", self.proxy.flip, 0.5), ("select.tau_k", self.select.tau_k, 1.0)];
        match shares.iter().find(|(_, value, most)| !(0.0..=*most).contains(value)) {
            Some((name, value, most)) => Err(format!("{name} is {value}; it is a number from 0 to {most}")),
            None => Ok(()),
        }
    }

    fn check_strategies(&self) -> std::result::Result<(), String> {
        if self.select.strategies.is_empty() {
            return Err("select.strategies is empty; name at least one".into());
        }
        for (index, strategy) in self.select.strategies.iter().enumerate() {
            if self.select.strategies[..index].contains(strategy) {
                return Err(format!("select.strategies names `{strategy}` twice"));
            }
            let parsed = strategy.parse::<gainsay_core::select::Strategy>()?;
            if parsed.reads_heads() && self.reward.heads < 2 && self.proxy.model.is_none() {
                return Err(format!(
                    "select.strategies names `{strategy}`, which compares the heads of an ensemble: set reward.heads, \
                     for example to 8"
                ));
            }
        }
        self.select.pairs.parse::<gainsay_core::select::PairRule>().map(|_| ())
    }

    fn check_feedback(&self) -> std::result::Result<(), String> {
        let Feedback { oracle, noise } = &self.feedback;
        let noise = match noise {
            Some(noise) => noise.parse().map_err(|e| format!("feedback.noise: {e}"))?,
            None => Noise::None,
        };
        let judge = oracle.strip_prefix("judge:");
        if let Some(url) = judge {
            address("feedback.oracle", url)?;
        } else if !["gold", "labels", "web"].contains(&oracle.as_str()) {
            return Err("feedback.oracle is gold, labels, web or judge:URL".into());
        }
        if noise != Noise::None && (judge.is_some() || oracle == "web") {
            return Err("feedback.noise is for simulated annotators; people and judges err by themselves".into());
        }
        Ok(())
    }

    fn check_training(&self) -> std::result::Result<(), String> {
        let (reward, tune) = (&self.reward, &self.tune);
        if !["head", "lora", "full"].contains(&reward.method.as_str()) {
            return Err(format!("reward.method is `{}`; it is head, lora or full", reward.method));
        }
        if reward.heads == 1 {
            return Err("reward.heads is 1; an ensemble has at least 2, and 0 trains one head alone".into());
        }
        if !["rloo", "ppo", "grpo", "dpo", "rso", "bon", "none"].contains(&tune.method.as_str()) {
            return Err(format!("tune.method is `{}`; it is rloo, ppo, grpo, dpo, rso, bon or none", tune.method));
        }
        if !["ppo", "none"].contains(&tune.method.as_str()) && tune.k < 2 {
            return Err("tune.k is below 2; RLOO's baseline is the mean of the other completions".into());
        }
        if tune.target_kl.is_some() && tune.method != "ppo" {
            return Err(format!("tune.target_kl: ppo steers by it, {} does not; leave it out", tune.method));
        }
        if tune.uncertainty > 0.0 && reward.heads == 0 {
            return Err("tune.uncertainty reads the heads of an ensemble: set reward.heads, for example to 8".into());
        }
        Ok(())
    }
}

/// A server's address that makes sense, and keeps its key out of the recipe, which is copied into runs.
fn address(name: &str, url: &str) -> std::result::Result<(), String> {
    let parsed = gainsay_remote::Address::parse(url).map_err(|e| format!("{name}: {e}"))?;
    match parsed.holds_key() {
        true => Err(format!("{name}: {parsed} holds a key, which runs would copy; put it into GAINSAY_API_KEY")),
        false => Ok(()),
    }
}
