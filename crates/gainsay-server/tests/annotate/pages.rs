//! The pages, from invite to export.

use gainsay_core::record::Answer as Said;
use gainsay_server::annotate::task::{Response, judgements, rankings};
use serde_json::json;

use crate::support::{databases, filled};
use crate::support_web::{Browser, SECRET, admin, annotator, router, value};

#[tokio::test]
async fn from_invite_to_answer_undo_and_export() {
    for database in databases().await {
        let store = filled(&database, 3, 2).await;
        let app = router(&store, "");
        let nobody = Browser { app: app.clone(), session: String::new() };
        assert_eq!(nobody.get("/work").await.location, "/");
        assert_eq!(nobody.get("/admin").await.location, "/admin/sign-in");
        let signed = nobody.post("/admin/sign-in", &[("secret", SECRET)]).await;
        let session = signed.cookie.split(['=', ';']).nth(1).unwrap().to_owned();
        assert!(signed.cookie.contains("HttpOnly") && signed.cookie.contains("SameSite=Lax"), "{}", signed.cookie);
        let boss = Browser { app: app.clone(), session };
        let csrf = value(&boss.get("/admin/people").await.text, "csrf");
        let made = boss.post("/admin/people", &[("csrf", &csrf), ("name", "Ann <b>")]).await.text;
        assert!(made.contains("Ann &lt;b&gt;"));
        let link = made.split("href=\"/invite/").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let path = format!("/invite/{link}");
        assert!(nobody.get(&path).await.text.contains("Start"));
        let started = nobody.post(&path, &[]).await;
        let ann = Browser { app: app.clone(), session: started.cookie.split(['=', ';']).nth(1).unwrap().into() };
        assert_eq!(ann.get("/").await.location, "/guidelines");
        let csrf = value(&ann.get("/guidelines").await.text, "csrf");
        assert_eq!(ann.post("/guidelines", &[("csrf", &csrf)]).await.location, "/work");
        let page = ann.get("/work").await.text;
        for hidden in ["pacs", "p0/0-1", "shf-cas", "reward"] {
            assert!(!page.contains(hidden), "annotators must not see {hidden}");
        }
        let sides = page.find("first 0") > page.find("second answer 0");
        let done =
            ann.answer(&[("answer", "left2"), ("safe_left", "yes"), ("rating_right", "4"), ("comment", "ok")]).await;
        assert_eq!((done.status.as_u16(), done.location.as_str()), (303, "/work"));
        let votes = store.votes().await.unwrap();
        let Response::Compare { answer, strength, safe_first, safe_second, rating_first, rating_second } =
            votes[0].given.response
        else {
            panic!("{votes:?}")
        };
        let expected = if sides { Said::Second } else { Said::First };
        assert_eq!((answer, strength), (expected, Some(2)), "left is what stands on the left");
        let (safe, rating) = if sides { (safe_second, rating_first) } else { (safe_first, rating_second) };
        assert_eq!((safe, rating, votes[0].given.comment.as_str()), (Some(true), Some(4), "ok"));
        let csrf = value(&ann.get("/work").await.text, "csrf");
        ann.post("/undo", &[("csrf", &csrf)]).await;
        assert!(ann.get("/work").await.text.contains("your answer before"));
        ann.answer(&[("answer", "both_bad")]).await;
        let export = boss.get("/admin/export/preferences.jsonl").await.text;
        assert!(export.contains("\"both_bad\"") && export.lines().count() == 1, "{export}");
        assert!(boss.get("/admin").await.text.contains("Krippendorff"));
        assert!(boss.get("/admin/audit").await.text.contains("undo"));
    }
}

#[tokio::test]
async fn disagreements_are_decided_by_the_admin() {
    for database in databases().await {
        let store = filled(&database, 1, 2).await;
        let app = router(&store, "");
        for (name, answer) in [("ann", "both_bad"), ("bo", "tie")] {
            annotator(&app, &store, name).await.answer(&[("answer", answer), ("comment", "because")]).await;
        }
        let boss = admin(&app, &store).await;
        let page = boss.get("/admin/disagreements").await.text;
        assert!(page.contains("1 open") && page.contains("both bad") && page.contains("because"), "{page}");
        let (csrf, item) = (value(&page, "csrf"), value(&page, "item"));
        let fields = [("csrf", csrf.as_str()), ("item", item.as_str()), ("why", "clear"), ("decision", "first")];
        assert_eq!(boss.post("/admin/disagreements", &fields).await.status, 303);
        assert!(boss.get("/admin/disagreements").await.text.contains("0 open"));
        let export = boss.get("/admin/export/preferences.jsonl").await.text;
        let record: gainsay_core::record::PreferenceRecord = serde_json::from_str(export.trim()).unwrap();
        assert_eq!((record.answer, record.p_first, record.votes.len()), (Said::First, Some(1.0), 2));
        for (name, _) in [
            ("trl.jsonl", ""),
            ("votes.csv", ""),
            ("label-studio.json", ""),
            ("argilla.json", ""),
            ("dawid-skene.jsonl", ""),
        ] {
            assert!(boss.get(&format!("/admin/export/{name}")).await.text.contains("question 0"), "{name}");
        }
    }
}

#[tokio::test]
async fn rankings_and_judgements() {
    for database in databases().await {
        let store = filled(&database, 0, 1).await;
        let record = serde_json::from_value(json!({"id": "r", "prompt": "q",
            "completions": [{"text": "one"}, {"text": "two"}, {"text": "three"}]}))
        .unwrap();
        store.add_items(&rankings(vec![record]).unwrap()).await.unwrap();
        let record = serde_json::from_value(json!({"id": "j", "prompt": "q", "completions": [{"text": "x"}]})).unwrap();
        store.add_items(&judgements(vec![record]).unwrap()).await.unwrap();
        let app = router(&store, "");
        let ann = annotator(&app, &store, "ann").await;
        let bad = ann.answer(&[("answer", "rank"), ("rank_0", "1"), ("rank_1", "9"), ("rank_2", "1")]).await;
        assert_eq!(bad.status, 400);
        let ranked = [("answer", "rank"), ("rank_0", "3"), ("rank_1", "1"), ("rank_2", "3"), ("comment", "c")];
        assert_eq!(ann.answer(&ranked).await.status, 303);
        assert_eq!(ann.answer(&[("label", "unknown")]).await.status, 400);
        assert_eq!(ann.answer(&[("label", "unsafe"), ("rating", "2")]).await.status, 303);
        let (items, votes) = (store.items().await.unwrap(), store.votes().await.unwrap());
        assert_eq!(votes[0].given.response.words(), "2 > 1 = 3");
        let pairs = gainsay_server::annotate::aggregate::preferences(&items, &votes, &[], Default::default());
        let said: Vec<(&str, Said)> = pairs.iter().map(|p| (p.id.as_str(), p.answer)).collect();
        assert_eq!(said, [("r/0-1", Said::Second), ("r/0-2", Said::Tie), ("r/1-2", Said::First)]);
        let judged = gainsay_server::annotate::aggregate::judgements(&items, &votes, &[]);
        assert_eq!(
            (judged[0].completions[0].extra["label"].clone(), judged[0].completions[0].extra["rating"].clone()),
            (json!("unsafe"), json!(2.0))
        );
    }
}

#[tokio::test]
async fn drafts_come_back_and_a_path_prefix_works_either_way() {
    let database = &databases().await[0];
    let store = filled(database, 2, 1).await;
    let app = router(&store, "https://example.org/labels/");
    let ann = annotator(&app, &store, "ann").await;
    for prefix in ["", "/labels"] {
        let page = ann.get(&format!("{prefix}/work")).await.text;
        assert!(page.contains("action=\"/labels/work\"") && page.contains("href=\"/labels/app.css\""), "{page}");
        let hidden = ["csrf", "item", "ticket"].map(|name| value(&page, name));
        let fields = [
            ("csrf", hidden[0].as_str()),
            ("item", &hidden[1]),
            ("ticket", &hidden[2]),
            ("comment", "half <i>"),
            ("safe_left", "no"),
        ];
        assert_eq!(ann.post(&format!("{prefix}/draft"), &fields).await.status, 204);
        let page = ann.get("/work").await.text;
        assert!(page.contains("half &lt;i&gt;") && page.contains("name=\"safe_left\" value=\"no\" checked"), "{page}");
    }
    for path in ["/", "/labels", "/labels/"] {
        assert_eq!(ann.get(path).await.location, "/labels/work", "{path}");
    }
    let nobody = Browser { app, session: String::new() };
    let signed = nobody.post("/labels/admin/sign-in", &[("secret", SECRET)]).await;
    assert!(signed.cookie.contains("Secure") && signed.cookie.contains("Path=/labels;"), "{}", signed.cookie);
    assert_eq!(signed.location, "/labels/admin");
    assert!(nobody.get("/app.js").await.text.contains("keydown") && nobody.get("/health").await.text == "ok\n");
}
