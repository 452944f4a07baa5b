"""Recurrent models that the Transformer replaced: RNN, LSTM, GRU, with attention."""
