//! Who gets which item.

use std::time::Duration;

use gainsay_core::record::Answer;
use gainsay_server::annotate::store::{ReRank, Settings, Store, Submitted, Undone};

use crate::support::{databases, filled, is_there, pairs, person, says};

#[tokio::test]
async fn the_strongest_conflict_comes_first_and_nobody_gets_it_twice() {
    for database in databases().await {
        let store = filled(&database, 3, 2).await;
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        let mut seen = Vec::new();
        while let Some(work) = store.next(ann).await.unwrap() {
            // Asked again, the same item is there: a reload loses nothing.
            assert_eq!(store.next(ann).await.unwrap().unwrap().ticket, work.ticket);
            seen.push(work.item.task.id().to_owned());
            let said = store.answer(ann, "ann", work.item.number, &work.ticket, &says(Answer::First), Some(1.0)).await;
            assert_eq!(said.unwrap(), Submitted::Recorded);
        }
        assert_eq!(seen, ["p0/0-1", "p1/0-1", "p2/0-1"]);
        assert_eq!(store.next(bo).await.unwrap().unwrap().item.task.id(), "p0/0-1");
    }
}

#[tokio::test]
async fn two_people_do_not_work_on_one_place() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        let work = store.next(ann).await.unwrap().unwrap();
        assert!(store.next(bo).await.unwrap().is_none(), "ann holds the only place");
        // A skip frees it.
        store.answer(ann, "ann", work.item.number, &work.ticket, &says(Answer::Skip), None).await.unwrap();
        assert!(store.next(ann).await.unwrap().is_none(), "what was skipped does not come back");
        assert!(store.next(bo).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_given_to_another_and_a_late_answer_is_not_one_too_many() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        store.set(&Settings { lease_seconds: 5, ..Settings::default() }, "test").await.unwrap();
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        let late = store.next(ann).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5100)).await;
        let work = store.next(bo).await.unwrap().expect("ann's lease ran out");
        let answer = says(Answer::Second);
        let said = store.answer(bo, "bo", work.item.number, &work.ticket, &answer, None).await.unwrap();
        assert_eq!(said, Submitted::Recorded);
        let said = store.answer(ann, "ann", late.item.number, &late.ticket, &answer, None).await.unwrap();
        assert_eq!(said, Submitted::Full);
        assert_eq!(store.votes().await.unwrap().len(), 1);
        // With a second place, the late answer counts after all.
        store.set(&Settings { overlap: 2, ..Settings::default() }, "test").await.unwrap();
        let said = store.answer(ann, "ann", late.item.number, &late.ticket, &answer, None).await.unwrap();
        assert_eq!(said, Submitted::Recorded);
    }
}

#[tokio::test]
async fn a_form_counts_once_and_another_ones_not_at_all() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        let work = store.next(ann).await.unwrap().unwrap();
        let number = work.item.number;
        for (who, ticket) in [(bo, work.ticket.as_str()), (ann, "0"), (ann, "' OR '1'='1")] {
            let said = store.answer(who, "x", number, ticket, &says(Answer::First), None).await.unwrap();
            assert_eq!(said, Submitted::NotYours);
        }
        assert!(store.votes().await.unwrap().is_empty());
        let first = store.answer(ann, "ann", number, &work.ticket, &says(Answer::First), None).await.unwrap();
        let again = store.answer(ann, "ann", number, &work.ticket, &says(Answer::First), None).await.unwrap();
        assert_eq!((first, again), (Submitted::Recorded, Submitted::Replayed));
        let other = store.answer(ann, "ann", number, &work.ticket, &says(Answer::Second), None).await.unwrap();
        assert_eq!(other, Submitted::Differs, "another answer is not dropped in silence");
        let votes = store.votes().await.unwrap();
        assert_eq!((votes.len(), votes[0].given.clone()), (1, says(Answer::First)));
    }
}

#[tokio::test]
async fn undo_opens_the_last_answer_with_what_was_said_and_the_trail_keeps_both() {
    for database in databases().await {
        let store = filled(&database, 3, 1).await;
        let (ann, _) = person(&store, "ann").await;
        assert_eq!(store.undo(ann, "ann").await.unwrap(), Undone::Nothing);
        for answer in [Answer::First, Answer::Tie] {
            let work = store.next(ann).await.unwrap().unwrap();
            store.answer(ann, "ann", work.item.number, &work.ticket, &says(answer), None).await.unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let waiting = store.next(ann).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(store.undo(ann, "ann").await.unwrap(), Undone::Reopened);
        let open = store.next(ann).await.unwrap().unwrap();
        assert_eq!(open.item.task.id(), "p1/0-1");
        assert!(open.draft.as_deref().unwrap().contains("tie"));
        // The answer that was taken back cannot be sent again with its old ticket.
        let said = store.answer(ann, "ann", open.item.number, &waiting.ticket, &says(Answer::First), None).await;
        assert_eq!(said.unwrap(), Submitted::NotYours);
        let answered =
            store.answer(ann, "ann", open.item.number, &open.ticket, &says(Answer::Second), None).await.unwrap();
        assert_eq!(answered, Submitted::Recorded);
        // Then the question that was waiting.
        assert_eq!(store.next(ann).await.unwrap().unwrap().ticket, waiting.ticket);
        let actions: Vec<String> =
            store.events(50).await.unwrap().into_iter().filter(|e| e.item.is_some()).map(|e| e.action).collect();
        assert_eq!(actions, ["answer", "undo", "answer", "answer"]);
        assert_eq!(store.progress(ann).await.unwrap().mine, 2);
    }
}

#[tokio::test]
async fn overlap_changes_at_once_and_new_ranks_change_the_order() {
    for database in databases().await {
        let store = filled(&database, 3, 1).await;
        let (ann, _) = person(&store, "ann").await;
        let (bo, _) = person(&store, "bo").await;
        let work = store.next(ann).await.unwrap().unwrap();
        store.answer(ann, "ann", work.item.number, &work.ticket, &says(Answer::First), None).await.unwrap();
        store.set(&Settings { overlap: 2, ..Settings::default() }, "test").await.unwrap();
        store.rerank(&[ReRank { id: "p2/0-1".into(), priority: -1.0 }]).await.unwrap();
        let order: Vec<String> = {
            let mut order = Vec::new();
            while let Some(work) = store.next(bo).await.unwrap() {
                order.push(work.item.task.id().to_owned());
                store.answer(bo, "bo", work.item.number, &work.ticket, &says(Answer::First), None).await.unwrap();
            }
            order
        };
        assert_eq!(order, ["p2/0-1", "p0/0-1", "p1/0-1"]);
        let progress = store.progress(ann).await.unwrap();
        assert_eq!((progress.answered, progress.wanted), (4, 6));
    }
}

#[tokio::test]
async fn gold_checks_come_as_often_as_set_and_measure() {
    for database in databases().await {
        let store = filled(&database, 6, 1).await;
        let mut checks = pairs(102).split_off(100);
        let checks: Vec<_> = checks.drain(..).map(|task| (task, says(Answer::First))).collect();
        store.add_gold_checks(&checks).await.unwrap();
        store.set(&Settings { gold_every: 3, ..Settings::default() }, "test").await.unwrap();
        let (ann, _) = person(&store, "ann").await;
        let mut gold = Vec::new();
        for _ in 0..8 {
            let work = store.next(ann).await.unwrap().unwrap();
            gold.push(work.item.expected.is_some());
            store.answer(ann, "ann", work.item.number, &work.ticket, &says(Answer::First), None).await.unwrap();
        }
        assert_eq!(gold, [false, false, true, false, false, true, false, false]);
        assert!(store.next(ann).await.unwrap().is_none());
        let (items, votes) = (store.items().await.unwrap(), store.votes().await.unwrap());
        let people = gainsay_server::annotate::measure::people(&items, &votes);
        assert_eq!(people[0].gold.map(|g| (g.estimate, g.n)), Some((1.0, 2)));
        let preferences = gainsay_server::annotate::aggregate::preferences(&items, &votes, &[], Default::default());
        assert_eq!(preferences.len(), 6, "gold checks are not exported");
    }
}

#[tokio::test]
async fn sides_are_random_but_stay() {
    let database = &databases().await[0];
    let store = filled(database, 200, 1).await;
    let (ann, _) = person(&store, "ann").await;
    let mut swapped = 0;
    for _ in 0..200 {
        let work = store.next(ann).await.unwrap().unwrap();
        assert_eq!(store.next(ann).await.unwrap().unwrap().swapped, work.swapped);
        swapped += usize::from(work.swapped);
        store.answer(ann, "ann", work.item.number, &work.ticket, &says(Answer::First), None).await.unwrap();
    }
    // sd of a fair share of 200: 7.1; 5 sd.
    assert!((64..=136).contains(&swapped), "{swapped}");
}

#[tokio::test]
async fn a_second_start_finds_everything() {
    for database in databases().await {
        let store = filled(&database, 2, 1).await;
        let (ann, session) = person(&store, "ann").await;
        let work = store.next(ann).await.unwrap().unwrap();
        assert!(store.keep_draft(ann, work.item.number, &work.ticket, "{\"comment\":\"half\"}").await.unwrap());
        assert!(!store.keep_draft(ann, work.item.number, "other", "{}").await.unwrap());
        drop(store);
        let store = Store::open(&database.db).await.unwrap();
        assert_eq!(store.add_items(&pairs(2)).await.unwrap(), 0);
        let again = store.next(ann).await.unwrap().unwrap();
        assert_eq!((again.ticket, again.draft.as_deref()), (work.ticket, Some("{\"comment\":\"half\"}")));
        assert!(store.session(&session, "").await.unwrap().is_some());
        let mut other = pairs(1);
        if let gainsay_server::annotate::task::Task::Compare(pair) = &mut other[0] {
            pair.first.text = "changed".into();
        }
        let error = store.add_items(&other).await.unwrap_err();
        assert!(error.is_user_error() && error.to_string().contains("p0/0-1"), "{error}");
    }
}

#[tokio::test]
async fn databases_that_cannot_be_opened_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    std::fs::write(&file, "no database at all, but long enough to be read as one".repeat(50)).unwrap();
    for db in
        [file.display().to_string(), folder.path().display().to_string(), "postgres://nobody:pw@127.0.0.1:1/x".into()]
    {
        let Err(error) = Store::open(&db).await else { panic!("{db} was opened") };
        assert!(error.is_user_error() && !error.to_string().contains(":pw"), "{error}");
    }
    assert!(is_there(&file.display().to_string()));
}

#[tokio::test]
async fn invites_work_once() {
    for database in databases().await {
        let store = filled(&database, 1, 1).await;
        let invite = store.invite("ann").await.unwrap();
        assert_eq!(store.invited(&invite).await.unwrap().as_deref(), Some("ann"));
        let session = store.accept_invite(&invite).await.unwrap().unwrap();
        assert!(store.accept_invite(&invite).await.unwrap().is_none());
        assert!(store.invited(&invite).await.unwrap().is_none());
        assert!(store.accept_invite("0").await.unwrap().is_none());
        assert!(store.invite(" ").await.is_err() && store.invite("a\nb").await.is_err());
        let ann = store.people().await.unwrap()[0].id;
        store.set_active(ann, false).await.unwrap();
        assert!(store.session(&session, "").await.unwrap().is_none(), "shut out means signed out");
    }
}
