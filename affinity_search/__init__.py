"""Does this loss help on my images, with which settings, and is that luck?"""
