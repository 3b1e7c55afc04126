//! Hashes are the library's, and a full queue says so.

use std::sync::mpsc::sync_channel;

use argon2::{PasswordHasher, PasswordVerifier};

use super::*;

const PASSWORD: &str = "correct horse battery";

#[test]
fn hashes_here_and_in_the_library_are_the_same() {
    let mut area = Area::default();
    for password in ["", "a", PASSWORD, "пароль из слов", &"x".repeat(PASSWORD_BYTES_MAX)] {
        let ours = area.hash(password.as_bytes()).unwrap();
        assert!(ours.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{ours}");
        Argon2::default().verify_password(password.as_bytes(), ours.as_str()).unwrap();
        let theirs = Argon2::default().hash_password(password.as_bytes()).unwrap().to_string();
        assert!(area.verify(password.as_bytes(), &theirs));
        assert!(!area.verify(b"another", &theirs));
    }
}

#[test]
fn a_string_that_is_no_hash_of_ours_is_never_right() {
    let mut area = Area::default();
    // Four times the memory of an area.
    let large = "$argon2id$v=19$m=77824,t=1,p=1$c2FsdHNhbHRzYWx0c2E$q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s";
    for hash in ["", "nothing", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2E", large] {
        assert!(!area.verify(PASSWORD.as_bytes(), hash), "{hash}");
    }
}

#[tokio::test]
async fn a_password_that_is_too_long_is_wrong_although_its_beginning_is_right() {
    let hashing = Hashing::start().unwrap();
    let longest = "x".repeat(PASSWORD_BYTES_MAX);
    let hash = hashing.hash(longest.clone()).await.unwrap();
    assert_eq!(hashing.verify(longest.clone(), hash.clone()).await, Ok(true));
    assert_eq!(hashing.verify(longest.clone() + "x", hash).await, Ok(false));
    assert_eq!(hashing.hash(longest + "x").await, Err(HashingError::Failed));
}

#[tokio::test]
async fn a_full_queue_says_so_and_empties() {
    let hashing = Hashing::start().unwrap();
    let Hashers::Threads(waiting) = &hashing.0 else { panic!("it has threads") };
    let (free, held) = sync_channel::<()>(0);
    let held = Arc::new(Mutex::new(held));
    let (begun, beginning) = sync_channel(HASHING_THREADS);
    for _ in 0..HASHING_THREADS {
        let (held, begun) = (held.clone(), begun.clone());
        let job: Job = Box::new(move |_| {
            begun.send(()).unwrap();
            let _freed = held.lock().unwrap().recv();
        });
        assert!(waiting.try_send(job).is_ok());
    }
    // Every thread is busy; now the queue fills.
    for _ in 0..HASHING_THREADS {
        beginning.recv().unwrap();
    }
    while waiting.try_send(Box::new(|_| ())).is_ok() {}
    assert_eq!(hashing.verify(PASSWORD.into(), "x".into()).await, Err(HashingError::Busy));
    assert_eq!(hashing.hash(PASSWORD.into()).await, Err(HashingError::Busy));
    drop(free);
    let hash = loop {
        match hashing.hash(PASSWORD.into()).await {
            Err(HashingError::Busy) => tokio::task::yield_now().await,
            hashed => break hashed.unwrap(),
        }
    };
    assert_eq!(hashing.verify(PASSWORD.into(), hash).await, Ok(true));
}

#[tokio::test]
async fn a_hash_that_panics_costs_no_thread() {
    let hashing = Hashing::start().unwrap();
    for _ in 0..2 * HASHING_THREADS {
        assert_eq!(hashing.run(|_| panic!("on purpose")).await, Err::<(), _>(HashingError::Failed));
    }
    let hash = hashing.hash("correct horse".into()).await.unwrap();
    assert_eq!(hashing.verify("correct horse".into(), hash).await, Ok(true));
}

#[tokio::test]
async fn whoever_hashes_on_their_own_thread_gets_the_same_answers() {
    let hashing = Hashing::on_callers_thread();
    let hash = hashing.hash(PASSWORD.to_owned()).await.unwrap();
    assert_eq!(hashing.verify(PASSWORD.to_owned(), hash.clone()).await, Ok(true));
    assert_eq!(hashing.verify("another".to_owned(), hash).await, Ok(false));
}
