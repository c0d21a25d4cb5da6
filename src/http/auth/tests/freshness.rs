//! What is remembered and for how long. This module changes keys and takes the provider away.

use super::*;

#[test]
fn a_token_is_verified_once_a_minute_and_never_after_its_end() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let token = key.token(&claims_with("exp", json!(NOW + 30)));
    let first = door.check(Some(&token), NOW).unwrap();
    let second = door.check(Some(&token), NOW + 1).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the second one came out of the cache");
    let late = door.check(Some(&token), NOW + 45).unwrap();
    assert!(
        !Arc::ptr_eq(&first, &late),
        "past its end only the leeway lets it in, by the signature"
    );
    assert_eq!(
        door.check(Some(&token), NOW + 60),
        Err(AuthError::Invalid("the token has expired"))
    );
}

#[test]
fn a_principal_knows_how_long_its_token_will_be_taken() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let token = key.token(&claims_with("exp", json!(NOW + 30)));
    let good_for = |principal: &Principal, now_s| principal.good_for(Duration::from_secs(now_s));
    let principal = door.check(Some(&token), NOW).unwrap();
    assert_eq!(good_for(&principal, NOW), Some(Duration::from_secs(60)), "with the leeway");
    assert_eq!(good_for(&principal, NOW + 59), Some(Duration::from_secs(1)));
    door.check(Some(&token), NOW + 59).unwrap();
    assert_eq!(good_for(&principal, NOW + 60), Some(Duration::ZERO), "when the door refuses it");
    door.check(Some(&token), NOW + 60).unwrap_err();
    let endless = key.token(&claims_with("exp", json!(1_u64 << 50)));
    let left = good_for(&door.check(Some(&endless), NOW).unwrap(), NOW).unwrap();
    assert!(left > Duration::from_secs(1 << 49), "{left:?}");
}

#[test]
fn a_refused_token_is_not_remembered() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    door.check(Some(&key.token(&claims_without("tenant_id"))), NOW).unwrap_err();
    assert_eq!(door.keyring.cache.len(), 0);
}

#[test]
fn a_key_taken_out_of_the_set_stops_counting_at_once() {
    let (old, new) = (TestKey::ec("old"), TestKey::ec("new"));
    let script = Script::default()
        .then(Ok(key_set(&[&old])))
        .then(Ok(key_set(&[&old])))
        .then(Ok(key_set(&[&new])));
    let (door, refresher) = door(&script);
    let token = old.token(&claims());
    refresher.pass(NOW);
    let first = door.check(Some(&token), NOW).unwrap();
    refresher.pass(NOW + 1);
    let second = door.check(Some(&token), NOW + 1).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "an unchanged set leaves the cache alone");
    refresher.pass(NOW + 2);
    door.check(Some(&token), NOW + 2).unwrap_err();
    door.check(Some(&new.token(&claims())), NOW + 2).unwrap();
}

#[test]
fn the_last_good_keys_stay_while_the_provider_is_away() {
    let key = TestKey::ec("ec");
    let script = Script::default()
        .then(Ok(key_set(&[&key])))
        .then(Err("no route to host"))
        .then(Ok(b"<html>".to_vec()))
        .then(Ok(br#"{"keys":[]}"#.to_vec()));
    let (door, refresher) = door(&script);
    refresher.pass(NOW);
    for i in 1..=3 {
        let rest = refresher.pass(NOW + i);
        assert!(rest < Duration::from_secs(60), "it is tried again soon");
        let token = key.token(&claims_with("jti", json!(i)));
        door.check(Some(&token), NOW + i).unwrap();
    }
    let KeysState::Loaded { keys: 1, age, last_error: Some(why) } = door.keys_state(NOW + 3) else {
        panic!("{:?}", door.keys_state(NOW + 3));
    };
    assert_eq!(age, Duration::from_secs(3));
    assert!(why.contains("no key"), "{why}");
}

#[test]
fn a_token_of_an_unknown_key_is_not_judged_while_the_provider_is_away() {
    let (old, new) = (TestKey::ec("old"), TestKey::ec("new"));
    let script = Script::default()
        .then(Ok(key_set(&[&old])))
        .then(Err("no route to host"))
        .then(Ok(key_set(&[&old, &new])));
    let (door, refresher) = door(&script);
    refresher.pass(NOW);
    let token = new.token(&claims());
    assert_eq!(door.check(Some(&token), NOW + 10), Err(AuthError::Retry));
    refresher.pass(NOW + 10);
    assert_eq!(door.check(Some(&token), NOW + 11), Err(AuthError::NoKeys), "it may be a good one");
    door.check(Some(&old.token(&claims())), NOW + 11).unwrap();
    refresher.pass(NOW + 12);
    door.check(Some(&token), NOW + 12).unwrap();
    let stranger = TestKey::ec("stranger").token(&claims());
    let judged = door.check(Some(&stranger), NOW + 13);
    assert!(matches!(judged, Err(AuthError::Invalid(_))), "{judged:?}");
}

#[test]
fn before_the_first_keys_a_caller_waits_and_then_learns_that_there_are_none() {
    let key = TestKey::ec("ec");
    let (door, refresher) = door(&Script::default().then(Err("no route to host")));
    let token = key.token(&claims());
    assert_eq!(door.check(Some(&token), NOW), Err(AuthError::Retry));
    refresher.pass(NOW);
    assert_eq!(door.check(Some(&token), NOW + 1), Err(AuthError::NoKeys));
    assert_eq!(door.keys_state(NOW), KeysState::NeverLoaded("no route to host".to_string()));
    assert_eq!(door.check_waiting(Some(&token), None, NOW + 1, SOON), Err(AuthError::NoKeys));
}

#[test]
fn a_flood_of_unknown_keys_causes_one_fetch_in_ten_seconds() {
    let key = TestKey::ec("ec");
    let script = Script::default().then(Ok(key_set(&[&key])));
    let (door, refresher) = door(&script);
    refresher.pass(NOW);
    let stranger = TestKey::ec("stranger").token(&claims());
    for _ in 0..100 {
        assert!(matches!(door.check(Some(&stranger), NOW + 9), Err(AuthError::Invalid(_))));
    }
    for _ in 0..100 {
        assert_eq!(door.check(Some(&stranger), NOW + 10), Err(AuthError::Retry));
    }
    refresher.pass(NOW + 10);
    assert!(matches!(door.check(Some(&stranger), NOW + 11), Err(AuthError::Invalid(_))));
    assert_eq!(script.fetches(), 2);
    assert_eq!(
        door.check(Some(&stranger), NOW - 1000),
        Err(AuthError::Retry),
        "the clock was set back"
    );
}

#[test]
fn unknown_tokens_hold_up_one_worker_at_a_time() {
    let key = TestKey::ec("ec");
    let (door, refresher) = door(&Script::default().then(Ok(key_set(&[&key]))));
    let token = key.token(&claims());
    let seat = Seat::take(&door.waiters).unwrap();
    assert_eq!(door.check_waiting(Some(&token), None, NOW, SOON), Err(AuthError::NoKeys));
    drop(seat);
    assert_eq!(door.check_waiting(Some(&token), None, NOW, Duration::ZERO), Err(AuthError::NoKeys));
    refresher.pass(NOW);
    door.check_waiting(Some(&token), None, NOW, Duration::ZERO).unwrap();
}
