# What a program measured on the wall is at least what it waited; on a busy machine it is more.
s/^together ([4-9]|[1-9][0-9]+) s$/together 4 s/
s/^in all: about [1-9][0-9]* s$/in all: about 1 s/
