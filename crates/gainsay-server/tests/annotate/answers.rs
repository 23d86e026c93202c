//! Drafts, answers that come twice, undo, and what is counted.

use std::time::Duration;

use gainsay_core::record::Answer;
use gainsay_server::annotate::store::{Settings, Store, Submitted, Undone};

use crate::support::{Database, databases, filled, person, says};
use crate::support_web::{annotator, router, value};

/// Answers what is next.
async fn answers(store: &Store, id: i64, name: &str, answer: Answer) {
    let work = store.next(id).await.unwrap().unwrap();
    let said = store.answer(id, name, work.item.number, &work.ticket, &says(answer), None).await.unwrap();
    assert_eq!(said, Submitted::Recorded);
    // Undo goes by the time of the answers.
    tokio::time::sleep(Duration::from_millis(3)).await;
}

/// When the lease of an item ends.
async fn lease_until(database: &Database, item: i64) -> i64 {
    let url = if database.db.contains("://") { database.db.clone() } else { format!("sqlite://{}", database.db) };
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let row = sqlx::query("SELECT lease_until FROM work WHERE item_id = $1").bind(item).fetch_one(&pool).await.unwrap();
    sqlx::Row::try_get(&row, 0).unwrap()
}

#[tokio::test]
async fn who_writes_keeps_the_item() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        let (ann, _) = person(&store, "ann").await;
        let work = store.next(ann).await.unwrap().unwrap();
        let before = lease_until(&database, work.item.number).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(store.keep_draft(ann, work.item.number, &work.ticket, "{}").await.unwrap());
        assert!(lease_until(&database, work.item.number).await >= before + 30);
        assert!(!store.keep_draft(ann, work.item.number, "another ticket", "{}").await.unwrap());
    }
}

#[tokio::test]
async fn a_draft_that_is_not_kept_can_be_told() {
    let database = &databases().await[0];
    let store = filled(database, 1, 1).await;
    let app = router(&store, "");
    let ann = annotator(&app, &store, "ann").await;
    let page = ann.get("/work").await.text;
    assert!(page.contains("id=\"lost\"") && page.contains("not in your hands any more"), "{page}");
    let [csrf, item] = ["csrf", "item"].map(|name| value(&page, name));
    let fields = [("csrf", csrf.as_str()), ("item", &item), ("ticket", "0"), ("comment", "c")];
    assert_eq!(ann.post("/draft", &fields).await.status, 409);
    assert!(ann.get("/app.js").await.text.contains("status !== 409"));
}

#[tokio::test]
async fn another_answer_on_a_used_form_is_told_and_the_same_one_is_not() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        let app = router(&store, "");
        let ann = annotator(&app, &store, "ann").await;
        let page = ann.get("/work").await.text;
        let hidden = ["csrf", "item", "ticket"].map(|name| value(&page, name));
        let send = async |answer: &str| {
            let fields =
                [("csrf", hidden[0].as_str()), ("item", &hidden[1]), ("ticket", &hidden[2]), ("answer", answer)];
            ann.post("/work", &fields).await
        };
        assert_eq!(send("tie").await.location, "/work");
        assert_eq!(send("tie").await.location, "/work", "a double click");
        let told = send("both_bad").await;
        assert!(told.status == 409 && told.text.contains("press U to change it"), "{}", told.text);
        assert_eq!(store.votes().await.unwrap()[0].given, says(Answer::Tie));
    }
}

#[tokio::test]
async fn undo_passes_over_a_skip_that_others_have_filled() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        answers(&store, ann, "ann", Answer::First).await;
        answers(&store, ann, "ann", Answer::Skip).await;
        answers(&store, bo, "bo", Answer::Tie).await;
        assert_eq!(store.undo(ann, "ann").await.unwrap(), Undone::PassedSkips);
        let open = store.next(ann).await.unwrap().unwrap();
        assert_eq!(open.item.task.id(), "p0/0-1");
        assert_eq!(store.undo(ann, "ann").await.unwrap(), Undone::Nothing, "the skip alone is left");
        // With another place, the skip can be taken back too.
        store.set(&Settings { overlap: 2, ..Settings::default() }, "test").await.unwrap();
        assert_eq!(store.undo(ann, "ann").await.unwrap(), Undone::Reopened);
        assert_eq!(store.next(ann).await.unwrap().unwrap().item.task.id(), "p1/0-1");
    }
}

#[tokio::test]
async fn the_page_says_what_became_of_an_undo() {
    let database = &databases().await[0];
    let store = filled(database, 3, 1).await;
    let app = router(&store, "https://h/labels");
    let ann = annotator(&app, &store, "ann").await;
    let undo = async || {
        let csrf = value(&ann.get("/work").await.text, "csrf");
        let to = ann.post("/undo", &[("csrf", &csrf)]).await.location;
        assert!(to.starts_with("/labels/work?undo="), "{to}");
        ann.get(&to).await.text
    };
    assert!(undo().await.contains("Nothing was taken back"));
    ann.answer(&[("answer", "tie")]).await;
    assert!(undo().await.contains("Your last answer is open again"));
    let other = ann.get("/work?undo=%3Cb%3E").await;
    assert!(other.status == 200 && !other.text.contains("role=\"status\""), "{}", other.text);
}

#[tokio::test]
async fn progress_after_the_overlap_went_down_is_never_negative() {
    for database in databases().await {
        let store = filled(&database, 1, 5).await;
        for (name, answer) in [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)] {
            let (id, _) = person(&store, name).await;
            match answer {
                true => answers(&store, id, name, Answer::First).await,
                false => assert!(store.next(id).await.unwrap().is_some()),
            }
        }
        let of = async || {
            let progress = store.progress(1).await.unwrap();
            (progress.answered, progress.wanted)
        };
        assert_eq!(of().await, (2, 5));
        store.set(&Settings { overlap: 1, ..Settings::default() }, "test").await.unwrap();
        assert_eq!(of().await, (1, 1));
    }
}
