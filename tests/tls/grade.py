"""Grades a TLS server with sslyze against Mozilla's intermediate profile.

usage: grade.py HOST PORT        (dialled at 127.0.0.1)

Certificates are not graded: the installation's own authority signs them, and
a handshake without a server name is refused here, which sslyze takes for a
fault of its own.
"""

import json
import pathlib
import sys

import sslyze
from sslyze import ScanCommand, ScanCommandAttemptStatusEnum, Scanner, ServerNetworkLocation, ServerScanRequest

COMMANDS = {command for command in ScanCommand if command not in (ScanCommand.CERTIFICATE_INFO, ScanCommand.HTTP_HEADERS)}


def main(host: str, port: int) -> list[str]:
    folder = pathlib.Path(sslyze.__file__).parent / "mozilla_tls_profile"
    profile = json.loads(next(folder.glob("*.json")).read_text())["configurations"]["intermediate"]
    scanner = Scanner()
    location = ServerNetworkLocation(hostname=host, port=port, ip_address="127.0.0.1")
    scanner.queue_scans([ServerScanRequest(server_location=location, scan_commands=COMMANDS)])
    result = next(iter(scanner.get_results())).scan_result
    faults = []
    for command in COMMANDS:
        attempt = getattr(result, command.value)
        if attempt.status != ScanCommandAttemptStatusEnum.COMPLETED:
            faults.append(f"{command.value} did not run: {attempt.error_reason}")
    if faults:
        return faults

    versions, suites = set(), set()
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3"]:
        accepted = getattr(result, f"{version}_cipher_suites").result.accepted_cipher_suites
        if accepted:
            versions.add(version)
        suites |= {(version, it.cipher_suite.openssl_name) for it in accepted}
    allowed = set(profile["ciphers"]["openssl"]) if isinstance(profile["ciphers"], dict) else set(profile["ciphers"])
    faults += [f"{version} is spoken" for version in versions - {"tls_1_2", "tls_1_3"}]
    faults += [f"{version} is not spoken" for version in {"tls_1_2", "tls_1_3"} - versions]
    for version, suite in suites:
        known = allowed if version == "tls_1_2" else set(profile["ciphersuites"])
        if suite not in known:
            faults.append(f"{suite} is accepted")
    curves = {it.name for it in result.elliptic_curves.result.supported_curves}
    names = {"X25519": "X25519", "prime256v1": "secp256r1", "secp256r1": "secp256r1", "secp384r1": "secp384r1"}
    wanted = {names.get(it, it) for it in profile["tls_curves"]}
    faults += [f"curve {it} is accepted" for it in curves - wanted]
    checks = {
        "compression": not result.tls_compression.result.supports_compression,
        "early data": not result.tls_1_3_early_data.result.supports_early_data,
        "CCS injection": not result.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection,
        "heartbleed": not result.heartbleed.result.is_vulnerable_to_heartbleed,
        "fallback SCSV": result.tls_fallback_scsv.result.supports_fallback_scsv,
        "renegotiation": not result.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos,
        "secure renegotiation": result.session_renegotiation.result.supports_secure_renegotiation,
        "extended master secret": result.tls_extended_master_secret.result.supports_ems_extension,
        "ROBOT": result.robot.result.robot_result.name.startswith("NOT_VULNERABLE"),
    }
    return faults + [f"{name} is not as it should be" for name, good in checks.items() if not good]


if __name__ == "__main__":
    found = main(sys.argv[1], int(sys.argv[2]))
    print("\n".join(found) or "as Mozilla's intermediate profile asks")
    sys.exit(bool(found))
