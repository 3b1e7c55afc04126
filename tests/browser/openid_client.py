"""An OpenID client nobody here wrote (Authlib): discovery, PKCE, token, key set.

Usage: openid_client.py ISSUER CLIENT_ID API_URL USERNAME PASSWORD
"""

import re
import socket
import sys
from urllib.parse import parse_qs, urlparse

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import jwt

# Names under .localhost are this machine (RFC 6761), whatever the resolver says.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: resolve(
    "127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **named
)

issuer, client_id, api_url, username, password = sys.argv[1:]
redirect = "http://127.0.0.1:7/callback"
metadata = requests.get(f"{issuer}/.well-known/openid-configuration").json()
assert metadata["issuer"] == issuer, metadata  # OpenID Connect Discovery, section 4.3
client = OAuth2Session(
    client_id, redirect_uri=redirect, scope="openid", code_challenge_method="S256", token_endpoint_auth_method="none"
)
verifier = "v" * 43
address, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier, nonce="n-1")

# The user's browser.
browser = requests.Session()
page = browser.get(address)
flow = re.search(r'name="flow" value="([^"]+)"', page.text).group(1)
answer = browser.post(
    f"{issuer}/signin", data={"flow": flow, "username": username, "password": password}, allow_redirects=False
)
callback = answer.headers["location"]
query = parse_qs(urlparse(callback).query)
assert query["state"] == [state] and query["iss"] == [metadata["issuer"]], callback

token = client.fetch_token(metadata["token_endpoint"], authorization_response=callback, code_verifier=verifier)
keys = requests.get(metadata["jwks_uri"]).json()
claims = jwt.decode(token["id_token"], keys, claims_options={
    "iss": {"essential": True, "value": metadata["issuer"]},
    "aud": {"essential": True, "value": client_id},
})
claims.validate()
assert claims["nonce"] == "n-1" and claims["preferred_username"] == username, claims

print(requests.get(api_url, headers={"authorization": f"Bearer {token['access_token']}"}).text)
