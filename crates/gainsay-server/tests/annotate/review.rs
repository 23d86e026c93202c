//! When the work is finished, imports, settings by options, and the admin's sessions.

use std::sync::Arc;

use gainsay_core::record::Answer;
use gainsay_server::annotate::store::{GivenElsewhere, Settings, Store, Submitted};
use gainsay_server::annotate::task::{Given, Response, Task};
use gainsay_server::annotate::web::token;

use crate::support::{databases, filled, pairs, person, says};
use crate::support_web::{Browser, SECRET, admin, router, router_with};

#[tokio::test]
async fn the_work_is_finished_when_nobody_has_anything_left() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        assert!(!store.is_finished().await.unwrap(), "nobody is there yet");
        let (ann, _) = person(&store, "ann").await;
        let mut states = Vec::new();
        for answer in [Answer::First, Answer::Skip] {
            let work = store.next(ann).await.unwrap().unwrap();
            states.push(store.is_finished().await.unwrap());
            store.answer(ann, "ann", work.item.number, &work.ticket, &says(answer), None).await.unwrap();
        }
        assert_eq!(states, [false, false]);
        assert!(store.is_finished().await.unwrap(), "the only annotator has skipped what is left");
        store.set_active(ann, false).await.unwrap();
        assert!(!store.is_finished().await.unwrap(), "an item lacks its answer, and somebody is to be let in");
        store.set_active(ann, true).await.unwrap();
        let (bo, _) = person(&store, "bo").await;
        assert!(!store.is_finished().await.unwrap(), "bo may answer it");
        let work = store.next(bo).await.unwrap().unwrap();
        assert!(!store.is_finished().await.unwrap(), "bo holds it");
        store.answer(bo, "bo", work.item.number, &work.ticket, &says(Answer::Tie), None).await.unwrap();
        assert!(store.is_finished().await.unwrap());
        store.undo(bo, "bo").await.unwrap();
        assert!(!store.is_finished().await.unwrap(), "an answer that is open again is missing");
        store.set_active(bo, false).await.unwrap();
        assert!(store.is_finished().await.unwrap(), "who is shut out is not waited for");
    }
}

#[tokio::test]
async fn disagreements_are_counted_until_they_are_decided() {
    for database in databases().await {
        let store = filled(&database, 1, 2).await;
        let votes: Vec<_> = [("ann", Answer::First), ("bo", Answer::Second)].map(|(name, a)| vote(0, name, a)).into();
        store.import_votes(&votes).await.unwrap();
        assert!(store.is_finished().await.unwrap());
        assert_eq!(store.undecided().await.unwrap(), 1);
        store.resolve(1, &says(Answer::First), "so").await.unwrap();
        assert_eq!(store.undecided().await.unwrap(), 0);
    }
}

fn vote(item: usize, annotator: &str, answer: Answer) -> GivenElsewhere {
    let item = format!("p{item}/0-1");
    GivenElsewhere { item, annotator: annotator.into(), given: says(answer), swapped: false, seconds: 1.0 }
}

#[tokio::test]
async fn the_same_texts_are_the_same_item_wherever_they_stand() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        let mut again = pairs(3);
        again.rotate_left(1);
        for (place, task) in again.iter_mut().enumerate() {
            let Task::Compare(pair) = task else { continue };
            (pair.rank, pair.strategy) = (place + 7, "imported".into());
            pair.meta.insert("from".into(), "elsewhere".into());
        }
        assert_eq!(store.add_items(&again).await.unwrap(), 1, "one is new");
        let Task::Compare(kept) = &store.items().await.unwrap()[1].task.clone() else { panic!() };
        assert_eq!((kept.strategy.as_str(), kept.rank), ("shf-cas", 1), "what is there stays");
        for change in ["prompt", "text"] {
            let mut other = pairs(1);
            if let Task::Compare(pair) = &mut other[0] {
                match change {
                    "prompt" => pair.prompt = gainsay_core::record::Prompt::Text("another".into()),
                    _ => pair.second.text = "another".into(),
                }
            }
            let error = store.add_items(&other).await.unwrap_err();
            assert!(error.is_user_error() && error.to_string().contains("p0/0-1"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_imported_vote_keeps_its_side_and_its_labels_and_stays() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        let response = Response::Compare {
            answer: Answer::First,
            strength: Some(2),
            safe_first: Some(true),
            safe_second: Some(false),
            rating_first: Some(5),
            rating_second: Some(1),
        };
        let given = Given { response, comment: "c".into() };
        let whole = GivenElsewhere { given: given.clone(), swapped: true, ..vote(0, "ann", Answer::Tie) };
        assert_eq!(store.import_votes(std::slice::from_ref(&whole)).await.unwrap(), 1);
        assert_eq!(store.import_votes(&[whole, vote(0, "ann", Answer::Tie)]).await.unwrap(), 0);
        let votes = store.votes().await.unwrap();
        assert_eq!((votes.len(), &votes[0].given, votes[0].swapped), (1, &given, true));
        let error = store.import_votes(&[vote(0, "bo", Answer::Tie), vote(9, "bo", Answer::Tie)]).await.unwrap_err();
        assert!(error.is_user_error() && store.votes().await.unwrap().len() == 1, "{error}");
    }
}

/// Imports and answers of the same people to the same items: rows are held in one order, so that
/// nobody waits for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn imports_while_people_answer() {
    for database in databases().await {
        let (items, people) = (40, 6);
        let store = filled(&database, items, 3).await;
        let names: Vec<String> = (0..people).map(|i| format!("person {i}")).collect();
        let mut working = Vec::new();
        for name in &names {
            let (id, _) = person(&store, name).await;
            working.push(tokio::spawn(work_off(store.clone(), id, name.clone())));
        }
        let other = Store::open(&database.db).await.unwrap();
        for round in 0..items / 4 {
            // Items and people backwards: the order of a file must not matter.
            let lot = (0..4).rev().map(|i| round * 4 + i).filter(|i| i % 2 == 0);
            let votes: Vec<_> = lot
                .flat_map(|item| names.iter().rev().take(2).map(move |name| vote(item, name, Answer::Tie)))
                .collect();
            other.import_votes(&votes).await.unwrap();
        }
        for work in working {
            work.await.unwrap();
        }
    }
}

async fn work_off(store: Arc<Store>, id: i64, name: String) {
    while let Some(work) = store.next(id).await.unwrap() {
        let said = store.answer(id, &name, work.item.number, &work.ticket, &says(Answer::First), None).await.unwrap();
        assert_eq!(said, Submitted::Recorded);
    }
}

#[tokio::test]
async fn an_option_that_says_the_same_again_leaves_what_the_page_set() {
    for database in databases().await {
        let store = Store::open(&database.db).await.unwrap();
        let option = |name, value: &str| (name, value.to_owned());
        let first = [option("title", "Mine"), option("overlap", "3")];
        store.take_options(&first).await.unwrap();
        let set = store.settings().await.unwrap();
        assert_eq!((set.title.as_str(), set.overlap), ("Mine", 3));
        store.set(&Settings { title: "Edited".into(), overlap: 2, ..set }, "admin").await.unwrap();
        store.take_options(&first).await.unwrap();
        let set = store.settings().await.unwrap();
        assert_eq!((set.title.as_str(), set.overlap), ("Edited", 2), "the same command again");
        store.take_options(&[option("title", "Mine"), option("overlap", "4")]).await.unwrap();
        let set = store.settings().await.unwrap();
        assert_eq!((set.title.as_str(), set.overlap), ("Edited", 4), "another value is taken");
        for bad in [option("gold_every", "1"), option("overlap", "0")] {
            assert!(store.take_options(std::slice::from_ref(&bad)).await.unwrap_err().is_user_error(), "{bad:?}");
        }
        assert_eq!(store.settings().await.unwrap().overlap, 4);
    }
}

#[tokio::test]
async fn a_new_secret_ends_the_admins_sessions_and_nobody_elses() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        let (_, ann) = person(&store, "ann").await;
        let old = admin(&router(&store, ""), &store).await;
        assert_eq!(old.get("/admin").await.status, 200);
        let app = router_with(&store, "", "another secret of the tests");
        let with = |session: &str| Browser { app: app.clone(), session: session.into() };
        assert_eq!(with(&old.session).get("/admin").await.location, "/admin/sign-in");
        assert_eq!(with(&old.session).get("/admin/export/votes.csv").await.location, "/admin/sign-in");
        assert_eq!(with(&ann).get("/").await.location, "/guidelines", "annotators stay signed in");
        assert!(old.get("/admin").await.status == 200, "a server with the old secret still knows it");
        store.close_session(&old.session, &token::hash(SECRET)).await.unwrap();
        assert_eq!(old.get("/admin").await.location, "/admin/sign-in");
    }
}
