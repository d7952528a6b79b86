"""Second opinions on class activation maps: attribution methods of Captum, and their agreement."""
