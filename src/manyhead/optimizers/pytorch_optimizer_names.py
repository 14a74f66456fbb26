"""Names of the optimisers in the package pytorch_optimizer: those that can be used, and why others cannot."""

USABLE = (
    "AccSGD", "AdaBelief", "AdaBound", "AdaDelta", "AdaFactor", "AdaGC", "Adai", "Adalite", "Adam", "AdaMax",
    "AdamC", "AdamG", "AdaMod", "AdamP", "AdamS", "AdamW", "AdamWSN", "Adan", "AdaNorm", "AdaPNM", "AdaShift",
    "AdaSmooth", "AdaTAM", "AdEMAMix", "ADOPT", "AggMo", "Aida", "Alice", "Amos", "Ano", "ApolloDQN", "AvaGrad",
    "BCOS", "CAME", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD", "DASH", "DiffGrad",
    "DualAdam", "EXAdam", "FAdam", "FlashAdamW", "FOCUS", "Fromage", "FTRL", "Grams", "Gravity", "GrokFastAdamW",
    "Kate", "Lamb", "LaProp", "LARS", "Lion", "MADGRAD", "MARS", "MSVAG", "NAdam", "Nero", "NovoGrad", "PAdam",
    "PID", "PNM", "Prodigy", "QHAdam", "QHM", "RACS", "RAdam", "Ranger", "Ranger21", "RMSprop", "ROSE", "SCION",
    "SCIONLight", "SGD", "SGDP", "SGDSaI", "SGDW", "Shampoo", "SignSGD", "SimplifiedAdEMAMix", "SM3", "SOAP",
    "SRMM", "StableAdamW", "StableSPAM", "TAM", "Tiger", "VSGD", "Yogi",
)  # fmt: skip

_REFUSED = {
    "it needs the loss, or a second pass over the batch, in a closure": (
        "AliG",
        "BSAM",
        "FriendlySAM",
        "GSAM",
        "LBFGS",
        "LookSAM",
        "SAM",
        "WSAM",
    ),
    "without the loss, which it would take from a closure, it is another optimiser": ("EmoFact", "EmoLynx", "EmoNavi"),
    "it needs second derivatives": ("AdaHessian", "SophiaH"),
    "it wraps another optimiser": (
        "Lookahead",
        "Magma",
        "OrthoGrad",
        "PCGrad",
        "SafeFP16Optimizer",
        "ScheduleFreeWrapper",
        "TRAC",
    ),
    "it scores other weights than it trains, by a mode of training and one of evaluation": (
        "ScheduleFreeAdamW",
        "ScheduleFreeRAdam",
        "ScheduleFreeSGD",
        "SPlus",
    ),
    "it needs the model, not its parameters": ("AdaLOMO", "AdamMini", "LOMO"),
    "it needs to be told for each group of parameters whether it applies": (
        "AdaGO",
        "AdaMuon",
        "DistributedMuon",
        "Muon",
        "MuonClip",
        "NorMuon",
    ),
    "without a rank, which it takes from groups of parameters only, it is AdamW": ("APOLLO", "Fira", "GaLore"),
    "it takes only one kind of parameters": ("LoRARite", "SpectralSphere"),
    "it sets the learning rate itself": ("ASGD", "SWATS"),
    "it has no learning rate that could follow a schedule": ("A2Grad",),
    "it fails when it starts its moments anew, every 500 steps, where a parameter has had no gradient yet": ("SPAM",),
    "it draws random numbers that training does not seed": ("Kron", "SaRA"),
    "it keeps objects that cannot be saved without running code from the file": ("Conda", "ScalableShampoo"),
    "it needs several processes": ("DeMo",),
}

REFUSED = {name: reason for reason, names in _REFUSED.items() for name in names}
