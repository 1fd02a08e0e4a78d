"""The words of tables and reports, each with its meaning: what a report shows when a heading is touched."""

import re

WORDS = {
    "1-NNA": "accuracy of a nearest-neighbour classifier that tells samples from references; .5 is ideal, 1 = told apart",
    "COV": "coverage: share of the references that are the nearest reference of some sample; higher is better",
    "MMD": "minimum matching distance: mean distance of each reference to its nearest sample; lower is better",
    "L2": "Euclidean distance over pixels",
    "SSIM": "(1 - structural similarity) / 2, a distance between pictures",
    "Chamfer": "mean squared distance to the nearest point of the other surface, summed over both directions",
    "IoU": "intersection over union of the insides of two shapes, at points of their cube; 1 is ideal",
    "F-score": "harmonic mean of two shares: of the points of either surface, those that lie near the other; 1 is ideal",
    "FID": "Fréchet distance of Gaussians fitted to features, here the 128 features of the named classifier, not Inception's; lower is better",
    "KID": "unbiased squared maximum mean discrepancy of the same features, in units of the references' root mean square, under a cubic kernel (arXiv:1801.01401), times 1,000, mean over 100 subsets of 1,000; lower is better",
    "label accuracy": "share of samples that the classifier reads as the class they were asked for",
    "unreadable": "samples that are not finite or could not be decoded; they are counted, not silently dropped",
    "Z_U": "Mann-Whitney z that compares the samples' distances to their nearest training field with those of held-out fields; negative = copying",
    "near copies": "share of samples whose distance to the nearest training signal, divided by that to the second nearest, is below that of 99 % of held-out fields",
    "token copies": "share of samples whose codes are exactly a training field's",
    "closed": "share of the fields whose surface has no border",
    "in parts": "share of the fields whose surface has more than one connected part",
    "samples": "new fields drawn from a model",
    "references": "held-out signals that samples are compared with",
    "training fields": "the row of the training data itself: the upper reference",
    "training images": "the signals that the training fields were fitted to",
    "round trip": "encode, then decode: what a tokenizer alone loses",
    "unigram": "every position drawn independently from its counts in the training fields",
    "sd noise": "training fields with noise on their weights, in standard deviations of each weight: nearly copies",
    "mean of two": "the mean of the weights of two training fields",
    "Gaussian": "rows drawn from one normal distribution fitted to the training fields",
    "N": "pictures on each side; every measure depends on it",
    "interval": "±: half of a 95 % interval, by bootstrap of per-point scores; of FID by jackknife of 20 groups",
    "signal": "what a field is fitted to: an image, a surface",
    "field": "a network from coordinates to values; stored as one row of P weights",
    "start": "the weights a fit starts from: unconditioned (random), conditioned (those of a fitted field), meta (a learnt row), amortised (a row predicted from the signal), subspace (a learnt row; fits move along learnt directions only)",
    "reference row": "the row of weights that a dataset's fits started from",
    "codes": "ids 0 .. V-1 of a vocabulary",
    "vocabulary": "the codes of a tokenizer; V is their number",
    "tokens": "codes of one field, T of them",
    "slots": "the place of each token in the field: layer, neuron and input, or component, or region",
    "standardiser": "subtracts the training mean of each weight and divides by its standard deviation, before encoding",
    "refit": "codes are changed after encoding so that the decoded field matches its signal",
    "rate": "price per bit in the training of a tokenizer, and in refit",
    "bits": "cross-entropy of tokens in base 2, per field",
    "nominal": "bits without any model: tokens times log2 of the number of codes",
    "per position": "cross-entropy under each position's training counts plus 1",
    "perplexity": "2 to the power of the entropy of the codes: the effective number of codes in use",
    "PSNR": "peak signal-to-noise ratio of rendered values in dB; higher is better",
    "probe": "accuracy of a ridge classifier of the labels on decoded weights",
    "temperature": "divides the logits when sampling; 1 = the distribution the model has learnt",
    "top-p": "sampling among the likeliest codes that hold this share of the probability; 1 = all",
    "guidance": "factor on what a label changes in the logits when sampling; 1 = as learnt, more = more typical of its class",
    "fingerprint": "16 hexadecimal digits that identify data, tokenizer or model",
}
"""Word -> meaning, without a full stop. The table in gpt/evaluation/README.md is this one."""

_FOUND = {
    word: re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])", re.IGNORECASE if word != "N" else 0) for word in WORDS
}


def explain(text: str) -> str:
    """What the words of a heading or of a row's name mean, in their order; "" where none is known."""
    found = sorted((match.start(), word) for word, pattern in _FOUND.items() if (match := pattern.search(text)))
    return " ".join(f"{word}: {WORDS[word]}." for _, word in found)


def in_use(texts: list[str]) -> dict[str, str]:
    """The words that occur in some texts, with their meanings, in the order of the glossary."""
    return {word: WORDS[word] for word, pattern in _FOUND.items() if any(pattern.search(text) for text in texts)}


def table() -> str:
    """The glossary as a Markdown table."""
    rows = [f"| {word} | {meaning} |" for word, meaning in WORDS.items()]
    return "\n".join(["| word | meaning |", "| --- | --- |", *rows])
