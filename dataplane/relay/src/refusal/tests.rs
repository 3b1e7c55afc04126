//! What pages and JSON say of requirements that a sign-in has not met.

use model::policy::Minutes;

use super::*;

/// Whoever lacks something is told what, and what to do; in each language.
#[test]
fn a_page_says_what_the_sign_in_has_not_shown() {
    let within = |minutes| Requirement::SignInWithin(Minutes::parse(minutes).unwrap());
    let cases = [
        (Language::English, Requirement::Mfa, "This application asks for a second step when you sign in."),
        (Language::English, within(30), "This application asks that you signed in within the last 30 minutes."),
        (Language::English, within(60), "This application asks that you signed in within the last hour."),
        (Language::English, within(90), "This application asks that you signed in within the last 90 minutes."),
        (Language::English, within(240), "This application asks that you signed in within the last 4 hours."),
        (Language::German, within(60), "dass Sie sich innerhalb der letzten Stunde angemeldet haben."),
        (Language::German, within(240), "dass Sie sich innerhalb der letzten 4 Stunden angemeldet haben."),
        (Language::French, within(60), "de moins d’une heure."),
        (Language::French, within(30), "de moins de 30 minutes."),
        (Language::Spanish, within(60), "en la última hora."),
        (Language::Spanish, within(240), "en las últimas 4 horas."),
        (Language::Spanish, within(30), "en los últimos 30 minutos."),
    ];
    for (language, requirement, sentence) in cases {
        let page = text(&[requirement], Wants::Page, language);
        assert!(page.contains(sentence), "{sentence} is not in {page}");
    }
    for language in Language::ALL {
        let page = text(&[Requirement::Mfa, within(240)], Wants::Page, language);
        let advice = Message::OneMoreStep.words(language).advice;
        let asked: Vec<_> = [Requirement::Mfa, within(240)].map(|it| language.asks(it)).into();
        let at: Vec<_> = asked.iter().map(String::as_str).chain([advice]).map(|it| page.find(it).unwrap()).collect();
        assert!(at.is_sorted(), "first what is missing, then what to do: {page}");
    }
    let other = Refusal::NotAssigned.response(&reader(Wants::Page, Language::English), "r1");
    assert!(!String::from_utf8_lossy(other.body()).contains("asks"), "no other refusal lacks anything");
}

#[test]
fn a_program_is_told_what_is_missing_in_words_and_in_acr_values() {
    let within = Requirement::SignInWithin(Minutes::parse(90).unwrap());
    let json: serde_json::Value =
        serde_json::from_str(&text(&[Requirement::Mfa, within], Wants::Json, Language::German)).unwrap();
    assert_eq!(json["code"], "more_proof_required");
    assert_eq!(json["acr_values"], "mfa sign-in-within:90m");
    let sentences = [
        "This application asks for a second step when you sign in.",
        "This application asks that you signed in within the last 90 minutes.",
    ];
    assert_eq!(json["missing"], serde_json::json!(sentences));
    let other = Refusal::NotAssigned.response(&reader(Wants::Json, Language::English), "r1");
    let other: serde_json::Value = serde_json::from_slice(other.body()).unwrap();
    assert!(other.get("missing").is_none() && other.get("acr_values").is_none(), "{other}");
}

// ---------------------------------------------------------------- helpers

fn text(missing: &[Requirement], wants: Wants, language: Language) -> String {
    let refusal = Refusal::MoreProofRequired(missing.iter().copied().collect());
    let response = refusal.response(&reader(wants, language), "r1");
    String::from_utf8(response.into_body().to_vec()).unwrap()
}

fn reader(wants: Wants, language: Language) -> Reader<'static> {
    static NOBODY: std::sync::LazyLock<Branding> = std::sync::LazyLock::new(Branding::default);
    Reader { wants, language, branding: &NOBODY, now: Timestamp(0) }
}
