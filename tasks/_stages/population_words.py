"""Banks of words for the generated population. All of it is made up here; nothing is of PRISM.

Value sets of the survey (ages, levels of familiarity and the like) are those of PRISM's schema.
"""

FAMILIARITY = ("Not familiar at all", "Somewhat familiar", "Somewhat familiar", "Very familiar")
FREQUENCIES = (
    "Less than one a year",
    "Once per month",
    "More than once a month",
    "Every week",
    "Every day",
)
AGES = (
    "18-24 years old",
    "25-34 years old",
    "35-44 years old",
    "45-54 years old",
    "55-64 years old",
    "65+ years old",
)
GENDERS = ("Male", "Female", "Male", "Female", "Non-binary / third gender")
WORK = ("Working full-time", "Working part-time", "Student", "Retired", "Unemployed, seeking work")
EDUCATION = (
    "Completed Secondary School",
    "Vocational",
    "Some University but no degree",
    "University Bachelors Degree",
    "Graduate / Professional degree",
)
MARITAL = ("Never been married", "Married", "Divorced / Separated", "Widowed")
ENGLISH = ("Native speaker", "Fluent", "Advanced", "Intermediate")
COUNTRIES = (
    "Australia", "Canada", "Chile", "Estonia", "France", "Ghana", "Greece", "India", "Ireland",
    "Japan", "Kenya", "Mexico", "Norway", "Poland", "Portugal", "South Africa", "Spain",
    "United Kingdom", "United States", "Vietnam",
)  # fmt: skip
USE_CASES = (
    "homework_assistance", "research", "professional_work", "creative_writing",
    "casual_conversation", "daily_productivity", "travel_guidance", "language_learning", "games",
)  # fmt: skip
SLIDERS = (
    "values", "creativity", "fluency", "factuality", "diversity", "safety", "personalisation",
    "helpfulness",
)  # fmt: skip

BELIEFS = (
    "I try to be honest even when it costs me something.",
    "My family comes before everything else.",
    "I trust evidence more than feelings.",
    "Life is short, so I want some fun in it.",
    "I think everybody deserves respect.",
    "I like to keep an open mind and to hear all sides.",
    "Hard work and discipline got me where I am.",
    "I care about the community that I live in.",
    "I would rather have a simple answer than a clever one.",
    "Music and art matter more to me than money.",
    "I believe that science will solve most of our problems.",
    "Kindness costs nothing and changes a lot.",
    "I say what I mean and I expect others to do so.",
    "I love learning about things I know nothing of.",
    "Time is what I have least of.",
    "I doubt anybody who is too sure of himself.",
    "Nature is where I feel at home.",
    "I want my children to live in a fair country.",
    "Nobody should tell me how to live.",
    "I was raised to help whoever needs it.",
)
INSTRUCTIONS = (
    "Answer first and explain afterwards.",
    "Tell me when you are not sure.",
    "Talk to me as a friend would.",
    "Leave the jokes out.",
    "Give me the reasons on both sides.",
    "Keep it under five sentences.",
    "Ask me back if something is missing.",
    "Do not lecture me.",
    "Use examples from daily life.",
    "Be thorough, I have the patience.",
)

_UNGUIDED = (
    "a vegetable garden on a balcony", "the old bicycle in my shed", "a week of cheap dinners",
    "learning the accordion", "a birthday for my nephew", "the noise of the upstairs neighbor",
    "a first marathon", "the leaking kitchen tap", "a night train across two countries",
    "names for a rowing boat", "a job interview at a bakery", "sleeping badly in summer",
    "an aquarium for beginners", "the spelling of long words", "a used car with rust",
    "knitting a pair of socks", "a bedtime story about otters", "saving for a new roof",
    "the history of my small town", "bread without an oven", "a dog that barks at bells",
    "a letter to the city council", "painting a dark hallway", "mushrooms after the rain",
    "a chess opening for lazy people", "moving house with two cats", "a picnic in the wind",
    "the stars above a city", "repairing a torn tent", "a speech at my sister's wedding",
)  # fmt: skip
_VALUES = (
    "telling a friend the truth", "lending money to a brother", "caring for aging parents",
    "working on the day of rest", "raising children without screens", "forgiving a betrayal",
    "keeping a promise that hurts", "giving to people in the street", "eating animals",
    "moving far from home", "obeying a rule that seems foolish", "marrying outside the family",
    "praying in school", "flying for a holiday", "being loyal to a bad employer",
    "speaking up at the table", "owning more than one house", "having no children",
    "teaching manners", "spending on beauty", "reading a partner's messages",
    "choosing duty over joy", "modesty in dress", "trusting doctors", "honoring old customs",
    "ambition at work", "a quiet life", "borrowing for pleasure", "punishing a child",
    "talking about death",
)  # fmt: skip
_CONTROVERSY = (
    "a tax on meat", "voting at sixteen", "guns at home", "open borders for workers",
    "abortion late in pregnancy", "prayer in public schools", "a ban on private jets",
    "the death penalty", "prison for drug users", "euthanasia for the old", "a basic income",
    "statues of slavers", "nuclear power", "gender and sports", "vaccines by law",
    "strikes in hospitals", "racism in hiring", "police with body cameras", "rent control",
    "refugee camps", "a wealth tax for billionaires", "gay marriage in church",
    "animal rights in farming", "war and arms exports", "zoos", "home schooling",
    "censorship of books", "surveillance of streets", "inheritance", "climate protests on roads",
)  # fmt: skip
SUBJECTS = {
    "unguided": _UNGUIDED,
    "values guided": _VALUES,
    "controversy guided": _CONTROVERSY,
}
QUESTIONS = {
    "unguided": (
        "How would you go about {subject}?",
        "What do I need to know about {subject}?",
        "Could you give me three ideas for {subject}?",
        "Where do people go wrong with {subject}?",
        "Explain {subject} to somebody who never met it?",
    ),
    "values guided": (
        "What does a good person do when it comes to {subject}?",
        "Is it wrong to think twice about {subject}?",
        "How do I explain my view of {subject} to my family?",
        "Why do people judge each other over {subject}?",
        "Should I change my mind about {subject}?",
    ),
    "controversy guided": (
        "Should there be a law on {subject}?",
        "What do you think about {subject}?",
        "Why does {subject} divide people so much?",
        "Who is right in the debate on {subject}?",
        "Is there a fair compromise on {subject}?",
    ),
}
SITUATIONS = (
    "We argued at dinner yesterday and nobody gave way.",
    "I have half an hour before my train leaves.",
    "My neighbor brought it up while we hung the washing.",
    "There was a long piece in the paper this morning.",
    "I promised my class an answer by Friday.",
    "For years I never thought about it at all.",
    "A colleague laughed at me when I asked.",
    "I am new in this country and want to understand.",
    "My grandmother would have had a clear answer.",
    "It keeps me awake some nights.",
    "I am writing a short text for our village sheet.",
    "Somebody at the gym told me I had it all backward.",
    "My daughter asked me and I had nothing to say.",
    "I tried once and it ended badly.",
    "Everybody around me seems to know already.",
    "I saw a film about it last weekend.",
)
WISHES = (
    "Please be plain with me.",
    "Take your time.",
    "I can bear an unpleasant answer.",
    "Leave out what everybody knows.",
    "A few sentences will do.",
    "I want to hear more than one side.",
    "No need to spare my feelings.",
    "I would like to repeat it to others.",
    "Begin with what matters most.",
    "Tell me what you would do yourself.",
    "I know very little about it.",
    "I have read a great deal about it.",
)

FIRST_SENTENCES = (
    'On "{question}" people have written a great deal.',
    'You ask: "{question}". There is more than one way to answer.',
    'To "{question}" the short answer is that it depends on the person.',
    'Let us look at "{question}" step by step.',
)
SENTENCES = {
    "plain": (
        "Most of it comes down to time and money.",
        "Start small and see what happens.",
        "Write down what you want before you begin.",
        "Others have done it before and left notes.",
        "The first attempt rarely works.",
        "What is cheap at first can be dear later.",
    ),
    "warm": (
        "Thank you for asking, it is a kind question.",
        "Please be gentle with yourself in this.",
        "What does your family say about it?",
        "I appreciate how carefully you think about it.",
        "Would you like to tell me a little more?",
        "You are welcome to come back with the rest.",
    ),
    "sure": (
        "There is no doubt about the main point.",
        "The answer is certainly yes in the ordinary case.",
        "This is definitely the part that decides.",
        "It clearly works when it is done in order.",
        "Without question the second way is the better one.",
    ),
    "careful": (
        "Perhaps there is no single answer.",
        "It might be otherwise where you live.",
        "I could be wrong about the details.",
        "Maybe both sides see a part of it.",
        "It seems that nobody has measured it well.",
    ),
    "lively": (
        "What a wonderful thing to take on!",
        "It is amazing how much can change in a week!",
        "Go for it, you will love it!",
        "That is so exciting!",
        "Yeah, folks get really keen on this stuff!",
    ),
    "dry": (
        "The facts are as follows.",
        "Two conditions have to be met, and both are a matter of record.",
        "One may therefore conclude that the effect is moderate.",
        "Furthermore, the costs should be set against the benefits.",
        "In accordance with custom, notice is given in writing.",
    ),
    "playful": (
        "Even my imaginary cat has an opinion on that, and she is asleep.",
        "Spoiler: the spreadsheet wins, it always does.",
        "If it goes wrong, at least you have a funny story.",
        "Rumor has it that the first person to try it is still laughing.",
    ),
}
