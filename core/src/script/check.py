

def sha256_of_weights():
    """Of the file, or of a folder's shards one after the other."""
    digest = hashlib.sha256()
    shards = [weights] if os.path.isfile(weights) else sorted(
        os.path.join(weights, name) for name in os.listdir(weights) if name.endswith(".safetensors")
    )
    for shard in shards:
        with open(shard, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def compare(name, logits, expected):
    """Prints the tokens that the page showed; gives the largest difference of a logit or a log-probability."""
    logprobs = torch.log_softmax(logits.double(), -1)
    print(f"{name:28} {'logit':>10} {'page':>10} {'logprob':>10} {'page':>10}")
    worst = 0.0
    for id, token, logit, logprob in expected:
        print(f"{id:6} {token!r:21} {logits[id]:10.4f} {logit:10.4f} {logprobs[id]:10.4f} {logprob:10.4f}")
        worst = max(worst, abs(float(logits[id]) - logit), abs(float(logprobs[id]) - logprob))
    return worst


clean, edited = clean.detach().float().cpu(), edited.detach().float().cpu()
differences = {
    "clean": compare("clean", clean, EXPECTED_CLEAN),
    "edited": compare("edited", edited, EXPECTED_EDITED),
}
clean_logprobs, edited_logprobs = (torch.log_softmax(logits.double(), -1) for logits in (clean, edited))
kl = float((clean_logprobs.exp() * (clean_logprobs - edited_logprobs)).sum())
differences["KL"] = abs(kl - EXPECTED_KL)
print(f"KL(clean || edited) {kl:.6f} nats, on the page {EXPECTED_KL:.6f}")
print("largest differences:", ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
if weights and sha256_of_weights() == SHA256:
    assert all(value <= TOLERANCE for value in differences.values()), "the numbers do not agree"
    print(f"agrees with the page within {TOLERANCE}")
else:
    print("these are other weights than the page's, so its numbers need not agree")
