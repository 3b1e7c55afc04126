// The part of an address behind '#' never reaches a server. Carrying it along
// in the form's target lets the browser put it back after the sign-in.
for (const form of document.forms) {
  if (location.hash) form.action += location.hash;
}
