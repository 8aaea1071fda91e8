"""Words of the built-in retail world: a category tree, brands, styles, user attributes.

Every name is invented or a plain noun; nothing here comes from a data set.
"""

from itertools import chain

TREE: dict[str, dict[str, tuple[str, str, str]]] = {
    "Sports": {
        "Running": ("running shoes", "running watch", "hydration vest"),
        "Camping": ("tent", "sleeping bag", "camping stove"),
        "Cycling": ("bike helmet", "bike light", "saddle bag"),
        "Fitness": ("yoga mat", "kettlebell", "resistance band"),
    },
    "Clothing": {
        "Sportswear": ("running tights", "training shirt", "sports socks"),
        "Outdoor": ("rain jacket", "hiking trousers", "fleece"),
        "Commuting": ("backpack", "reflective vest", "gloves"),
        "Loungewear": ("hoodie", "joggers", "slippers"),
    },
    "Kitchen": {
        "Coffee": ("espresso cup", "hand grinder", "milk jug"),
        "Baking": ("cake tin", "rolling pin", "stand mixer"),
        "Cookware": ("frying pan", "casserole", "wok"),
        "Tableware": ("dinner plate", "water glass", "serving bowl"),
    },
    "Pantry": {
        "Roasts": ("filter coffee", "espresso beans", "decaf coffee"),
        "Flours": ("bread flour", "baking chocolate", "vanilla sugar"),
        "Spices": ("curry powder", "smoked paprika", "sea salt"),
        "Drinks": ("ginger syrup", "sparkling lemonade", "green tea"),
    },
    "Garden": {
        "Planting": ("tomato seeds", "raised bed", "plant pot"),
        "Tools": ("pruning shears", "hand trowel", "garden hose"),
        "Patio": ("garden chair", "parasol", "fire bowl"),
        "Wildlife": ("bird feeder", "insect house", "bird bath"),
    },
    "Home": {
        "Houseplants": ("monstera", "watering can", "plant mister"),
        "Workshop": ("cordless drill", "screwdriver set", "work light"),
        "Lighting": ("lantern", "string lights", "table lamp"),
        "Books": ("bird guide", "garden almanac", "nature journal"),
    },
}

DEPARTMENTS = tuple(TREE)
CATEGORIES = tuple(chain.from_iterable(TREE.values()))
SUBCATEGORIES = tuple(
    chain.from_iterable(chain.from_iterable(shelf.values()) for shelf in TREE.values())
)
CATEGORIES_PER_DEPARTMENT = 4
SUBCATEGORIES_PER_CATEGORY = 3

BRANDS = (
    "Alderwick",
    "Bramio",
    "Corvane",
    "Dunlea",
    "Elmora",
    "Fjordal",
    "Garnett",
    "Halvik",
    "Isoria",
    "Juniper",
    "Kestrow",
    "Lumena",
    "Marlow",
    "Nordhem",
    "Ottavia",
    "Pellam",
    "Quillon",
    "Rowanda",
    "Solvane",
    "Tarnby",
    "Ulvero",
    "Vantor",
    "Wexley",
    "Yarrow",
    "Zephra",
    "Ashgrove",
    "Birkeland",
    "Calloway",
    "Darrowby",
    "Eastmere",
    "Fernhill",
    "Greystoke",
    "Hollins",
    "Ivenhoe",
    "Kirkdale",
    "Larkspur",
    "Midvale",
    "Norwell",
    "Oakhurst",
    "Pinecrest",
)
STYLES = (
    "Classic",
    "Nordic",
    "Rustic",
    "Modern",
    "Vintage",
    "Minimal",
    "Bold",
    "Natural",
    "Premium",
    "Compact",
    "Playful",
    "Heritage",
)
COLOURS = ("moss", "sand", "slate", "coral", "navy", "ivory", "amber", "teal", "rust", "charcoal")

AGE_GROUPS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
REGIONS = ("north", "east", "south", "west", "coast", "highland", "capital", "islands")
SEGMENTS = (
    "athlete",
    "gardener",
    "barista",
    "homemaker",
    "commuter",
    "explorer",
    "collector",
    "minimalist",
    "parent",
    "student",
)
DEVICES = ("mobile", "desktop", "tablet")


def complement_group(category: int) -> int:
    """Return the group of categories that are bought together with `category`.

    Departments come in neighbouring pairs (Sports with Clothing, Kitchen with Pantry, Garden
    with Home); the categories of one place in both are complements (Coffee with Roasts).
    """
    department, place = divmod(category, CATEGORIES_PER_DEPARTMENT)
    return department // 2 * CATEGORIES_PER_DEPARTMENT + place
